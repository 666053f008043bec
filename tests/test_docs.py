"Whatever is public is documented, shown in a notebook, and has its place in the sidebar"
import ast,dataclasses,importlib,inspect,re,subprocess,sys
from pathlib import Path
import yaml
from fastcore.docments import docments
from fastcore.nbio import read_nb

root = Path(__file__).resolve().parent.parent
notebooks = [p for p in sorted((root/'nbs').rglob('*.ipynb')) if '.ipynb_checkpoints' not in p.parts]
sys.path.insert(0, str(root/'docs'))

def exported(source): return re.search(r'^#\|\s*export', source, re.M)

def modules():
    "Modules that notebooks generate, by notebook"
    for p in notebooks:
        if names := [o[1] for c in read_nb(p).cells if (o := re.search(r'^#\|\s*default_exp (\S+)', c.source, re.M))]: yield p,importlib.import_module(f'prp_fastai.{names[0]}')

def public():
    "(module.name, object) of everything that a module gives away"
    for _,mod in modules():
        for name in mod.__all__: yield f"{mod.__name__.removeprefix('prp_fastai.')}.{name}",getattr(mod, name)

def undocumented(o):
    "Parameters of a function, or of a class, that have no comment of their own"
    if inspect.isclass(o) and '__init__' not in vars(o): return []
    f = o.__init__ if inspect.isclass(o) and not dataclasses.is_dataclass(o) else o
    named = [k for k,v in inspect.signature(f).parameters.items() if k!='self' and v.kind not in (v.VAR_POSITIONAL, v.VAR_KEYWORD)]
    docs = [docments(o, full=True) for o in ([c for c in f.__mro__ if dataclasses.is_dataclass(c)] if inspect.isclass(f) else [f])]
    return [k for k in named if not any(o[k].docment for o in docs if k in o)]

def none(gaps):
    "There are no `gaps`, {name: what is missing}"
    assert not gaps, '\n'.join(f'{k}: {v}' for k,v in gaps.items())

def used(source):
    "Names in the code of a cell"
    try: tree = ast.parse(re.sub(r'^[%!].*$', '', source, flags=re.M))
    except SyntaxError: return set()
    return {getattr(o, 'id', None) or getattr(o, 'attr', None) for o in ast.walk(tree) if isinstance(o, (ast.Name, ast.Attribute))}

def examples(): return set().union(*(used(c.source) for p in notebooks for c in read_nb(p).cells if c.cell_type=='code' and not exported(c.source)))

def test_docstrings_and_parameters():
    code = {n: o for n,o in public() if inspect.isfunction(o) or inspect.isclass(o)}
    assert len(code)>60
    none({n: 'no docstring' for n,o in code.items() if not o.__doc__})
    none({n: f'nothing is said about {", ".join(bad)}' for n,o in code.items() if (bad := undocumented(o))})

def test_every_public_name_is_shown_in_a_notebook():
    shown = examples()
    none({n: 'no cell of a notebook uses it' for n,_ in public() if n.split('.')[-1] not in shown})

def test_every_notebook_has_a_place_in_the_sidebar():
    import sidebar
    text = (root/'nbs/sidebar.yml').read_text()
    assert text==sidebar.sidebar(), 'run python docs/sidebar.py'
    places = [o for s in yaml.safe_load(text)['website']['sidebar']['contents'] for o in s['contents']]
    assert sorted(places)==sorted(p.relative_to(root/'nbs').as_posix() for p in notebooks)

def test_every_module_shows_outputs():
    for p,mod in modules(): assert any(c.get('outputs') for c in read_nb(p).cells if c.cell_type=='code' and not exported(c.source)), f'{p.name} shows nothing'

def test_notebooks_are_small():
    import pictures
    for p in notebooks:
        assert p.stat().st_size<700_000, p.name
        assert not pictures.slim(read_nb(p)), f'{p.name} has photographs as PNG, run python docs/pictures.py'

def test_the_report_of_wrong_gradients_runs():
    "Its code says what it prints, one relative error for each number of frames; right for all but two of them on every processor"
    code = re.search(r'```python\n(.*?)```', (root/'docs/reports/bf16_conv3d.md').read_text(), re.S)[1]
    assert len(code.splitlines())<=10
    ran = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    errors = {int(k): float(v) for k,v in map(str.split, ran.stdout.splitlines())}
    assert list(errors)==[1,2,3,4] and all(0<errors[k]<.01 for k in (1,3,4)) and not 0<=errors[2]<1e-4
