"""What each part of the recipe `modern` is worth: one change a row, measured as `pretexts.py` measures.

`python experiments/modern.py FOLDER --out experiments/results/NAME/modern.csv` pretrains on the training videos of split 1 without their labels, and measures on its test videos.
A run is a row, written when it is done, and not done again. `modern` itself, and `modern` without differences of frames, are rows of `pretexts.py`: `contrast` with `c3d_diff` and with `c3d`."""
from fastcore.script import call_parse
from prp_fastai.all import *
from pretexts import measure
from tables import add_rows,done

changes = {'without colour': dict(colour=0.), 'without crops': dict(area=1.), 'more colour': dict(colour=.8), 'smaller crops': dict(area=.2),
           'speed jitter': dict(jitter=.2), 'two speeds': dict(clips='pair')}

@call_parse(pos=['source'])
def main(
    source:str, # Dataset in UCF101's shape
    out:str='modern.csv', # Table that gets the rows
    names:str=','.join(changes), # Changes, in the order of the runs
    seeds:str='0,1,2', # All runs are done with each
    cache:str=None, # Folder that `prp-cache` filled for this size
    width:float=.125, # Factor on the channels of the encoder
    size:int=56, # Side of the crop in pixels
    clips:int=30, # Clips that each training video gives
    num_workers:int=1, # Processes that read videos
):
    "Train `modern` with one thing changed"
    df,out = read_ucf101(source, 1),Path(out)
    how = dict(width=width, size=size, clips=clips)
    for seed in seeds.split(','):
        for name in names.split(','):
            key = {k: str(v) for k,v in dict(change=name, seed=seed, width=width, size=size, clips=clips).items()}
            if done(out, key): continue
            row,_ = measure('modern', 'c3d_diff', int(seed), df, how, cache, num_workers, **changes[name])
            print(', '.join(f'{k} {v}' for k,v in (key|row).items()), flush=True)
            add_rows(out, pd.DataFrame([key | {k: v if isinstance(v, str) else round(v, 3) for k,v in row.items()}]))
