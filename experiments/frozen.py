"""What blocks over time, trained by playback rate, add to a frozen image network on videos in which only motion tells.

`python experiments/frozen.py FOLDER --out experiments/results/NAME/frozen.csv` keeps the maps of all videos of a dataset in UCF101's shape, trains the blocks on the training videos of split 1
without their labels, and searches with its test videos. A row is written when it is measured, and not measured again."""
from fastcore.script import call_parse
from prp_fastai.all import *
from tables import add_rows,done
import tempfile

def retrieval(encoder, kept, df):
    "Top-k retrieval in %, from kept maps, by mean features"
    x,test = kept_features(encoder, kept),df.is_test.values
    index = VideoIndex(x[~test], df.path[~test].tolist(), df.label[~test], 'rspnet')
    return {f'top{k}': 100*v for k,v in index.search(x[test], 50, labels=list(df.label[test])).top_k((1,5,10)).items()}

@call_parse(pos=['source'])
def main(
    source:str, # Dataset in UCF101's shape
    out:str='frozen.csv', # File for the results
    maps:str='maps', # Folder for the maps, some gigabytes
    name:str='timm/resnet18', # Image network
    weights:str=None, # `published`, which is fetched, or a file; random if left out
    level:int=2, # Which of its maps
    size:int=56, # Side of the crop in pixels
    nf:int=32, # Channels of the blocks
    epochs:int=30, # Clips that each training video gives
    seeds:str='0,1,2', # Of the blocks; the image network is the same
):
    "Measure a frozen image network by itself, with random blocks and with trained ones"
    df = read_ucf101(source, 1)
    def made(seed, blocks):
        set_seed(0)
        image = foreign_encoder(name, weights, size=size, level=level, nf=nf, blocks=0).net.image
        set_seed(seed)
        res = foreign_encoder(name, size=size, level=level, nf=nf, blocks=blocks)
        res.net.image = image
        return res
    out,kept = Path(out),keep_maps(made(0, 0), df.path.tolist(), maps)
    train = [i for i,o in enumerate(df.is_test) if not o]
    groups = [video_group(df.path[i]) for i in train]
    held = set(sorted(set(groups))[::10])
    for seed in map(int, seeds.split(',')):
        for kind,blocks in {'image network':0, 'random blocks':2, 'blocks trained by rate':2}.items():
            key = dict(encoder=name, weights=weights or 'random', kind=kind, seed=str(seed), size=str(size))
            if done(out, key): continue
            encoder,res = made(seed, blocks),{}
            if kind=='blocks trained by rate':
                learn,start = maps_learner(encoder, kept[train], [i for i,g in enumerate(groups) if g in held]),time.perf_counter()
                with learn.no_bar(): learn.fit_one_cycle(epochs, .004)
                res = dict(minutes=(time.perf_counter()-start)/60, rate_accuracy=100*learn.recorder.values[-1][-1])
            row = {k: round(v, 2) for k,v in {**res, **retrieval(encoder, kept, df)}.items()}
            print(key | row, flush=True)
            add_rows(out, pd.DataFrame([key | row]))
