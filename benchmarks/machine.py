"""On what the benchmarks ran: `python benchmarks/machine.py --out benchmarks/results/machine.csv`, in the environment of the others."""
import os,platform
from importlib.metadata import PackageNotFoundError,version
import pandas as pd,torch
from fastcore.script import call_parse

def version_of(name):
    try: return version(name)
    except PackageNotFoundError: return 'not installed'

@call_parse
def main(
    out:str=None, # Table to write, .csv
):
    "Cores, GPU and versions"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else 'none'
    facts = dict(cores=os.cpu_count(), gpu=gpu, python=platform.python_version()) | {o: version_of(o) for o in ('torch','av','opencv-python-headless','torchcodec','decord','pillow','numpy')}
    df = pd.DataFrame(facts.items(), columns=['what','which']).set_index('what')
    print(df.to_string())
    if out: df.to_csv(out)
