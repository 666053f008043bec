"Notebooks are clean, and the library, the README and the notebooks say the same. Run before anything else: `python tests/in_step.py`"
import filecmp,shutil,subprocess,sys,tempfile
from pathlib import Path

root = Path(__file__).resolve().parent.parent
kept = ('nbs','prp_fastai','pyproject.toml','settings.ini','setup.py','README.md','LICENSE')

def copy_project(to):
    for o in kept:
        if (root/o).is_dir(): shutil.copytree(root/o, to/o, ignore=shutil.ignore_patterns('__pycache__','.ipynb_checkpoints','sample'))
        else: shutil.copy(root/o, to/o)

def files(d): return {p.relative_to(d) for o in ('nbs','prp_fastai') for p in (d/o).rglob('*') if p.is_file() and p.suffix in ('.py','.ipynb','.txt')
                      and not {'__pycache__','.ipynb_checkpoints','sample'} & set(p.parts)}

def differences():
    "Files that `nbdev-clean` or `nbdev-export` would change, in a copy of the project"
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        copy_project(tmp)
        for cmd in ('nbdev-clean','nbdev-export'): subprocess.run([Path(sys.executable).parent/cmd], cwd=tmp, check=True)
        both = files(root)|files(tmp)
        return sorted(str(o) for o in both if not ((root/o).exists() and (tmp/o).exists() and filecmp.cmp(root/o, tmp/o, shallow=False)))

if __name__=='__main__':
    if diff:=differences(): sys.exit('not clean or not in step; run nbdev-clean and nbdev-export: ' + ', '.join(diff))
    print('notebooks are clean and in step with the library')
