"""Rows of the motion benchmark of encoders that nothing has trained: two without weights, random ones, and an image network.

`prp-render mocap15 --per-class 80 --twins`, then `python experiments/motion.py mocap15 --out experiments/results/mocap15_drawn/leaderboard.csv`.
A row that is there is not measured again. `prp-benchmark` makes the rows of trained encoders."""
from fastcore.script import call_parse
from prp_fastai.all import *

def untrained(size, width):
    "Encoders by name; drawn anew by each call, and the same by seed"
    set_seed(0)
    return {'mean frame': MeanFrame(), 'mean change': MeanChange(), 'random C3D': create_encoder('c3d', width), 'random C3D of differences': create_encoder('c3d_diff', width),
            'random ResNet-18, mean over frames': foreign_encoder('timm/resnet18', size=size, level=2, blocks=0),
            'random R(2+1)D of differences': create_encoder('r2plus1d_diff', width)}

@call_parse(pos=['source'])
def main(
    source:str, # Folder that `prp-render --twins` wrote
    out:str='leaderboard.csv', # Table that gets the rows
    size:int=56, # Side of the crop in pixels
    width:float=1/8, # Factor on the channels of C3D and R(2+1)D
    num_workers:int=None, # Processes that read videos
):
    "Add rows of untrained encoders"
    there = set(pd.read_csv(out).name) if Path(out).exists() else set()
    for name,net in untrained(size, width).items():
        if name in there: continue
        table,_ = motion_benchmark(net.eval(), source, baseline=False, size=size, num_workers=num_workers)
        row = table.loc['pretrained']
        add_result(out, name, row, arch=(card_of(net) or arch_of(net))['arch'], size=size, trained='')
        print(name, row.round(1).to_dict(), flush=True)
