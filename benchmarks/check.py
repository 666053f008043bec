"""What it costs to look at all gradients before each step: steps of pretraining with `StopAtNonFinite` and without, by turns.

`python benchmarks/check.py --out benchmarks/results/check.csv`. Random frames in memory; medians over rounds, and their ratio."""
from statistics import median
import pandas as pd,torch
from fastcore.script import call_parse
from prp_fastai.all import *
from train import Made,Ours

@call_parse
def main(
    out:str=None, # Table to write
    width:float=.125, # Factor on C3D's channels
    size:int=56, # Side of the crop in pixels
    bs:int=4, # Clips in a batch
    steps:int=3, # In a round of each way
    rounds:int=10, # After one that does not count
):
    "Print the median time of a step of each way, and the ratio"
    set_seed(0)
    device,rates = default_device(),torch.randint(4, (bs,))
    frames = torch.randint(256, ((16*2**rates).sum(), 3, size, size), dtype=torch.uint8)
    dls = DataLoaders(*[Made(frames, rates, device)]*2, device=device)
    dls.n_inp = 1
    ways = {o: Ours(PRPModel('c3d', width=width), dls, ('channels last','folded')) for o in ('with','without')}
    ways['without'].learn.remove_cb(StopAtNonFinite)
    times = {k: [] for k in ways}
    for i in range(rounds+1):
        for k,way in ways.items():
            at = way(steps+1)
            if i: times[k] += [b-a for a,b in zip(at, at[1:])]
    ms = {k: 1000*median(v) for k,v in times.items()}
    res = pd.DataFrame([dict(device=str(device), width=width, size=size, bs=bs, ms_with=round(ms['with'], 1), ms_without=round(ms['without'], 1), ratio=round(ms['with']/ms['without'], 3))])
    print(res.to_string(index=False))
    if out: res.to_csv(out, index=False)
