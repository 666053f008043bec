"""What the settings of a DataLoader's worker processes change: items a second, and how long an epoch takes to begin.

`python benchmarks/workers.py FOLDER --out benchmarks/results/workers.csv`, from files in YUV and from a cache of them, batches of 8. fastai starts the processes anew for each epoch; what that costs is in the last column.
On a GPU there are rows with the copy to it as well, from pinned memory and from memory that is not."""
import tempfile,time
from statistics import median
import pandas as pd,torch
from fastcore.script import call_parse
from prp_fastai.all import *
import loader

def measure(dl, on_device=False):
    "Items a second, from when each worker has given a batch, and seconds to the first batch"
    start = time.perf_counter()
    it = iter(dl)
    next(it)
    began = time.perf_counter()-start
    for _ in range(dl.fake_l.num_workers-1): next(it)
    start,n = time.perf_counter(),0
    for b in it:
        n += len(b[-1])
        if on_device: torch.cuda.synchronize()
    return n/(time.perf_counter()-start),began

@call_parse(pos=['folder'])
def main(
    folder:str, # Videos
    n_items:int=64, # Videos that are read, in each of the passes
    passes:int=4, # Times that they are read in a measurement
    rounds:int=3, # Measurements of each setting, of which medians are taken
    out:str=None, # Table to write, .csv
):
    "Compare settings of worker processes"
    torch.set_num_threads(1)
    videos,files = loader.chosen(folder, n_items)
    settings = [(w,p,False) for w,p in ((1,2),(2,1),(2,2),(2,4),(2,8),(4,2))] + ([(2,2,True)] if torch.cuda.is_available() else [])
    with tempfile.TemporaryDirectory() as tmp:
        cache_videos(set(files), tmp, loader.SIZE, manifest=videos, yuv=True)
        rows = {}
        for _ in range(rounds):
            for (workers,prefetch,pinned),(name,cache,times) in itertools.product(settings, (('files',None,1),('cache',tmp,8))):
                dl = loader.ours_dl(files*passes*times, workers, OpenVideo(videos, cache, loader.SIZE, yuv=True), yuv=True)
                dl.fake_l.prefetch_factor,dl.pin_memory,dl.fake_l.pin_memory = prefetch,pinned,pinned
                if torch.cuda.is_available(): dl.to('cuda')
                rows.setdefault((name,workers,prefetch,pinned), []).append(measure(dl, torch.cuda.is_available()))
    df = pd.DataFrame({k: map(median, zip(*v)) for k,v in rows.items()}, index=['items a second','seconds to the first batch']).T
    df.index.names = ['from','workers','prefetched each','pinned']
    df = df.sort_index(level=0, sort_remaining=False, ascending=False)
    print(df.round(2).to_string())
    if out: df.round(3).to_csv(out)
