"""What pretraining is worth: PRP against random weights of the same encoder, on a dataset in UCF101's shape, several seeds.

`python experiments/compare.py FOLDER --out experiments/results/NAME` pretrains on the training videos of split 1, without their labels, and measures on its test videos:
accuracy after fine-tuning (ten clips, same budget for both), linear probe, nearest neighbours that vote, and retrieval (VCOP's protocol). A seed that is done is not done again.
The defaults are for two processor cores and some ten minutes a seed; `--width 1 --size 112 --epochs 300` is the paper's encoder, for a GPU."""
import pandas as pd,torch
from fastcore.script import call_parse
from prp_fastai.all import *

def lean(learn):
    "`learn` without progress bars, its convolutions channels-last"
    learn.model.to(memory_format=torch.channels_last_3d)
    return learn.remove_cb(ProgressCallback)

def one_seed(df, seed, encoder, width, size, epochs, lr, tune_epochs, tune_lr, bs, cache, num_workers):
    "A row a measure: what it is, by PRP and by random weights, in %"
    data = dict(size=size, bs=bs, cache=cache, num_workers=num_workers, seed=seed)
    train,test = df[~df.is_test],df[df.is_test]
    set_seed(seed)
    dls = PRPDataLoaders.from_files(train.path.tolist(), valid_pct=.1, by_group=True, **data)
    learn = lean(prp_learner(dls, encoder, width=width, final='linear'))
    learn.fit_one_cycle(epochs, lr)
    rows,tuned = {},[]
    for pretrained in (learn, None):
        set_seed(seed)
        dls = VideoDataLoaders.from_df(df, label_col='label', fn_col='path', test_col='is_test', by_group=True, valid_pct=.1, **data)
        ft = lean(video_learner(dls, None if pretrained else encoder, encoder=pretrained, width=width))
        ft.fit_one_cycle(tune_epochs, tune_lr)
        tuned.append(recognition_accuracy(ft)*100)
    rows['fine-tuned, ten clips'] = tuple(tuned)
    probes = probe_table(learn, df, clips=3, size=size, bs=bs, seed=seed, num_workers=num_workers)*100
    for o,name in dict(linear='linear probe', knn='nearest neighbours vote').items(): rows[name] = tuple(probes[o])
    found,_ = retrieval_table(learn, train, test, ks=(1,5,10), bs=bs, seed=seed, num_workers=num_workers)
    for k in found.columns: rows[f'retrieval {k}'] = tuple(found[k])
    return pd.DataFrame(rows, index=['PRP','random']).T.rename_axis('measure')

@call_parse(pos=['source'])
def main(
    source:str, # Dataset in UCF101's shape
    out:str='compared', # Folder for the tables, one a seed, and `summary.csv`
    cache:str=None, # Folder that `prp-cache` filled for this size
    encoder:str='c3d', # c3d, r3d or r2plus1d
    width:float=.125, # Factor on its channels
    size:int=56, # Side of the crop in pixels
    epochs:int=8, # Of pretraining
    lr:float=.01, # Highest learning rate of pretraining, one cycle
    tune_epochs:int=6, # Of fine-tuning
    tune_lr:float=.02, # Highest learning rate of fine-tuning, one cycle
    bs:int=16, # Clips in a batch
    num_workers:int=1, # Processes that read videos
    seeds:str='0,1,2', # A run each
):
    "Compare PRP with random weights"
    df,out = read_ucf101(source, 1),Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for seed in map(int, seeds.split(',')):
        fname = out/f'seed{seed}.csv'
        if not fname.exists(): one_seed(df, seed, encoder, width, size, epochs, lr, tune_epochs, tune_lr, bs, cache, num_workers).round(2).to_csv(fname)
        print(fname), print(pd.read_csv(fname, index_col=0).to_string(), flush=True)
    runs = pd.concat({o.stem: pd.read_csv(o, index_col=0) for o in sorted(out.glob('seed*.csv'))})
    by = runs.groupby(level=1, sort=False)
    summary = pd.concat({'mean': by.mean(), 'spread': by.std()}, axis=1).swaplevel(axis=1)[['PRP','random']]
    summary.columns = [f'{w}, {s}' for w,s in summary.columns]
    summary.round(1).to_csv(out/'summary.csv')
    print(f'{len(runs.groupby(level=0))} seeds'), print(summary.round(1).to_string())
