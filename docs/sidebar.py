"Write `nbs/sidebar.yml`, the order of pages that both Sphinx and Quarto follow: `python docs/sidebar.py`"
from pathlib import Path
import yaml

nbs = Path(__file__).resolve().parent.parent/'nbs'
sections = {  # A notebook belongs to the first pattern that it matches
    'Get started': ('index','tutorials/quickstart','tutorials/own_videos'),
    'Tutorials': ('tutorials/pretrain_ucf101','tutorials/recognition','tutorials/retrieval','tutorials/paper_figures','tutorials/*'),
    'Data': ('0*',), 'Models': ('1*',), 'Training': ('2*',), 'Evaluation': ('3*',), 'Measurements': ('results','pretexts','benchmarks'), 'Tools': ('*',)}

def contents(nbs=nbs):
    "Each section with its notebooks, in order"
    left,res = {p.relative_to(nbs).as_posix() for o in ('*.ipynb','tutorials/*.ipynb') for p in nbs.glob(o)},[]
    for section,patterns in sections.items():
        found = []
        for o in patterns:
            found += sorted(left & {p.relative_to(nbs).as_posix() for p in nbs.glob(f'{o}.ipynb')})
            left -= set(found)
        if found: res.append(dict(section=section, contents=found))
    return res

def sidebar(): return yaml.safe_dump({'website': {'sidebar': {'contents': contents()}}}, sort_keys=False)

if __name__=='__main__': (nbs/'sidebar.yml').write_text(sidebar())
