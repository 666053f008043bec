"The project agrees with itself"
import ast,builtins,configparser,dis,importlib,inspect,re,sys,tomllib,types
from pathlib import Path
import prp_fastai.all as everything

root = Path(__file__).resolve().parent.parent
modules = [p for p in sorted((root/'prp_fastai').rglob('*.py')) if p.read_text().startswith(('# AUTOGEN','"""'))]

def test_all_gives_every_public_name():
    for p in modules:
        names = [o.targets[0].id for o in ast.walk(ast.parse(p.read_text())) if isinstance(o, ast.Assign) and getattr(o.targets[0], 'id', '')=='__all__']
        mod = importlib.import_module('.'.join(p.relative_to(root).with_suffix('').parts))
        for name in mod.__all__ if names else (): assert getattr(everything, name, None) is getattr(mod, name), f'{mod.__name__}.{name}'

def test_lower_wings_are_plain_torch():
    for o in ('sampling','motion','losses','models/encoders','models/prp'):
        assert not re.search(r'^(from|import) fast', (root/f'prp_fastai/{o}.py').read_text(), re.M), o

def test_nothing_imports_a_later_number():
    number = {}
    for nb in (root/'nbs').glob('[0-9]*.ipynb'):
        n,name = nb.stem.split('_', 1)
        number['prp_fastai.'+name] = n
    of_all = {'prp_fastai.pretexts': max(n for k,n in number.items() if k.startswith('prp_fastai.pretexts.'))}
    for name,n in number.items():
        for line in inspect.getsource(importlib.import_module(name)).splitlines():
            if line.startswith('from .'):
                package = name.rsplit('.', 1)[0]
                target = importlib.util.resolve_name(line.split()[1], package).removesuffix('.all')
                assert (number | of_all)[target]<n, f'{name} imports {target}'

def test_no_private_name_crosses_a_module():
    for p in modules:
        names = [a.name for o in ast.walk(ast.parse(p.read_text())) if isinstance(o, ast.ImportFrom) and (o.level or 'prp_fastai' in (o.module or ''))
                 for a in o.names]
        assert not [o for o in names if o.startswith('_')], p.name

def test_each_fact_in_one_place():
    toml,ini = tomllib.loads((root/'pyproject.toml').read_text()),configparser.ConfigParser(delimiters=['='])
    ini.read(root/'settings.ini')
    assert {'version','dependencies','optional-dependencies','scripts','classifiers'}<=set(toml['project']['dynamic'])
    assert not set(ini['DEFAULT']) & {'version','description','author','lib_name','license','min_python'}
    for line in ini['DEFAULT']['console_scripts'].split():
        mod,func = line.split('=')[1].split(':')
        assert callable(getattr(importlib.import_module(mod), func))

def test_public_names_have_docstrings():
    for p in modules:
        mod = importlib.import_module('.'.join(p.relative_to(root).with_suffix('').parts))
        for name in getattr(mod, '__all__', []):
            o = getattr(mod, name)
            if inspect.isfunction(o) or inspect.isclass(o): assert o.__doc__, f'{mod.__name__}.{name}'

def test_sample_is_small_and_complete():
    files = everything.get_video_files(everything.sample_videos())
    assert len(files)==60 and len({o.parent.name for o in files})==15
    assert sum(o.stat().st_size for o in files)<3e6
    for k in '123':
        train,test = (everything.read_list(everything.sample_videos()/f'split/{o}list0{k}.txt') for o in ('train','test'))
        assert sorted(train+test)==sorted(files) and not set(train.map(everything.video_group))&set(test.map(everything.video_group))

def test_readme_says_what_the_index_says():
    sys.path.insert(0, str(root/'docs'))
    from readme import readme
    for path,content in readme().items(): assert (root/path).read_bytes()==content, f'{path}: run python docs/readme.py'

def test_no_machine_paths_or_warnings_in_notebooks():
    for nb in (root/'nbs').rglob('*.ipynb'):
        if '.ipynb_checkpoints' in nb.parts: continue
        text = nb.read_text()
        assert not re.search(r'(?<![\w.])/(home|root|tmp|work|Users)/', text), nb
        assert 'Warning:' not in text, nb

def global_names(code):
    "The global names that a code object and those within it load"
    yield from (o.argval for o in dis.get_instructions(code) if o.opname=='LOAD_GLOBAL')
    for o in code.co_consts:
        if isinstance(o, types.CodeType): yield from global_names(o)

def test_every_global_name_is_there():
    for p in modules:
        mod = importlib.import_module('.'.join(p.relative_to(root).with_suffix('').parts))
        assert not {o for o in global_names(compile(p.read_text(), p, 'exec')) if not hasattr(mod, o) and not hasattr(builtins, o)}, p.name
