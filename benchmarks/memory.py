"""Does a process that reads videos grow? Its resident memory over many items, some of them broken, MB.

`python benchmarks/memory.py --out benchmarks/results/memory.csv` loads items of the packaged videos as a worker process does, and writes down its memory as it goes."""
import os,tempfile
from pathlib import Path
import pandas as pd
from fastcore.script import call_parse
from prp_fastai.all import *

def resident(): return int(Path('/proc/self/statm').read_text().split()[1])*os.sysconf('SC_PAGE_SIZE')/1e6

@call_parse
def main(
    n_items:int=20_000, # Items to load
    size:int=32, # Side of the crop in pixels
    out:str=None, # Table to write, .csv
):
    "Watch the memory of a process that loads items"
    with tempfile.TemporaryDirectory() as tmp:
        files = get_video_files(sample_videos())
        broken = L((Path(tmp)/f'{i}.mp4' for i in range(3)))
        for i,o in enumerate(broken): o.write_bytes(files[i].read_bytes()[:3000*(i+1)])
        dls = prp_dblock(size=size, splitter=IndexSplitter([0])).dataloaders(files+broken, bs=1, num_workers=0)
        dl,rows = dls.train,[]
        for i in range(n_items+1):
            if i%(n_items//20)==0: rows.append((i, resident()))
            dl.do_item(i%dl.n)
    df = pd.DataFrame(rows, columns=['items','MB']).set_index('items')
    grown = df.MB.iloc[-1]-df.MB.iloc[len(df)//4]
    print(df.T.round(0).to_string()), print(f'{dl.bad.sum()} files were broken; {grown:+.1f} MB from a quarter of the way on')
    if out: df.round(1).to_csv(out)
