"Docstrings are short, code cells are small, and public methods have their entry on the page"
import ast,inspect,re
import numpy as np,pytest
from fastcore.nbio import read_nb
from test_docs import exported,notebooks,public,root

def cells(path): return [c.source for c in read_nb(path).cells if c.cell_type=='code']
def lines(source): return [o for o in source.splitlines() if o.strip() and not o.startswith('#|')]

def wide_lines(path): return [o for s in cells(path) for o in s.splitlines() if len(o)>120]
def long_cells(path): return [s.splitlines()[1] for s in cells(path) if exported(s) and len(lines(s))>25]

def is_doc(o): return isinstance(o, ast.FunctionDef) and o.name[0]!='_' and ast.get_docstring(o)
def methods_without_entry(path):
    "Documented public methods in the bodies of public classes that no `show_doc` of the notebook shows"
    text = '\n'.join(cells(path))
    trees = [ast.parse(s) for s in cells(path) if exported(s)]
    classes = [o for t in trees for o in t.body if isinstance(o, ast.ClassDef) and o.name[0]!='_']
    names = [f'{c.name}.{f.name}' for c in classes for f in c.body if is_doc(f)]
    return [o for o in names if not re.search(rf'^show_doc\({re.escape(o)}\b', text, re.M)]

def name(path): return path.relative_to(root/'nbs').with_suffix('').as_posix()

@pytest.mark.parametrize('find', [wide_lines,long_cells,methods_without_entry])
def test_cells(find): assert not {name(p): v for p in notebooks if (v := find(p))}

def documented():
    "Docstrings of public functions and classes, and of public methods of these classes, by name"
    for k,o in public():
        if not (inspect.isfunction(o) or inspect.isclass(o)): continue
        yield k,o.__doc__
        for n,f in vars(o).items() if inspect.isclass(o) else ():
            f = getattr(f, '__func__', None) or getattr(f, 'fget', None) or getattr(f, 'f', f)
            if n[0]!='_' and inspect.isfunction(f) and f.__doc__: yield f'{k}.{n}',f.__doc__

def words(text): return len(text.split())

def test_docstrings():
    "What a thing is takes at most 9 words, by the median; with the errors it raises at most 18, but for 5 %"
    docs = dict(documented())
    assert len(docs)>250 and not [k for k,o in docs.items() if o is None]
    summary = [words(re.split('[.;] Raises ', o)[0]) for o in docs.values()]
    assert np.median(summary)<=9
    assert np.percentile([words(o) for o in docs.values()], 95)<=18, sorted((words(o), k) for k,o in docs.items())[-30:]
