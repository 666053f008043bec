"Build the documentation in `_docs` with nbdev's processing and Sphinx: `python docs/build.py --strict`"
import os,re,shutil,sys
from importlib import import_module
from pathlib import Path
here = Path(__file__).resolve().parent
sys.path.insert(0, str(here))
from fastcore.nbio import mk_cell,write_nb
from fastcore.script import anno_parser,call_parse
from nbdev.config import get_config
from nbdev.doclinks import _build_modidx
from nbdev.quarto import refresh_quarto_yml
from nbdev.serve import proc_nbs
import myst,sidebar

def default_and_help(action):
    "Default of an option, as its help says it, and the rest of the help"
    text,default = re.fullmatch(r'(.*?)(?: \(default: (.*)\))?', (action.help or '').replace('%%', '%'), re.S).groups()
    return '' if default in (None,'False') else default, text

def commands(cfg):
    "The reference of all shell commands, from what each says on `--help`"
    res = ['# Command reference', '*Every command and its options*']
    for line in (cfg.config_path/'settings.ini').read_text().splitlines():
        if not line.startswith(' '): continue
        name,(mod,func) = line.split('=')[0].strip(),line.split('=')[1].split(':')
        f = getattr(import_module(mod), func)
        parser = f.parser() if hasattr(f, 'parser') else anno_parser(f.__wrapped__, prog=name)
        parser.prog = name
        rows = [(', '.join(a.option_strings) or a.dest, *default_and_help(a)) for a in parser._actions if a.help!='==SUPPRESS==' and a.dest!='help']
        args = ' '.join(a.dest for a in parser._actions if not a.option_strings)
        res += [f'## {name}', parser.description, f'```sh\n{name} {args} [options]\n```', '| option | default | |\n|:--|:--|:--|\n' +
                '\n'.join(f'| `{o}` | {f"`{d}`" if d!="" else ""} | {h.replace("|", chr(92)+"|")} |' for o,d,h in rows)]
    return '\n\n'.join(res)+'\n'

def toctree(caption, docs): return '```{toctree}\n:hidden:\n' + f':caption: {caption}\n\n' + '\n'.join(docs) + '\n```'

def llms(cfg, pages):
    "An index of the site for language models, in the form of llmstxt.org"
    res = [f'# {cfg.title}', f'> {cfg.description}']
    for section,entries in pages.items():
        res.append(f'## {section}\n\n' + '\n'.join(f'- [{t}]({cfg.doc_host}{cfg.doc_baseurl}/{u}.md): {d}' for t,u,d in entries))
    return '\n\n'.join(res)+'\n'

def sources():
    "Process the notebooks; write what Sphinx reads to `docs/_src`, and what it copies to `docs/_extra`"
    cfg = get_config(here)
    os.chdir(cfg.config_path)
    reference = commands(cfg) # Imports the library, which the processes of `proc_nbs` then have
    refresh_quarto_yml(); _build_modidx()
    (cfg.nbs_path/'sidebar.yml').write_text(sidebar.sidebar())
    proc,src,extra = proc_nbs(force=True),here/'_src',here/'_extra'
    for p in (src,extra): shutil.rmtree(p, ignore_errors=True); p.mkdir()
    names = [p.relative_to(proc).as_posix() for p in sorted(proc.rglob('*.ipynb'))]
    url = {o: (Path(o).parent/myst.front_matter(myst.read_nb(proc/o))['output-file']).as_posix() for o in names}
    doc = {o: u.removesuffix('.html')+'.ipynb' for o,u in url.items()}
    conv,pages,trees = myst.Myst(cfg.doc_host+cfg.doc_baseurl, {url[o]: doc[o] for o in names}, doc),{},[]
    for part in sidebar.contents():
        pages[part['section']] = []
        for o in part['contents']:
            nb,fm = conv(proc/o, o, doc[o])
            pages[part['section']].append((fm['title'], url[o], fm['description'].strip()))
            for folder in (src/doc[o], extra/url[o]): folder.parent.mkdir(parents=True, exist_ok=True)
            (extra/f'{url[o]}.md').write_text(myst.to_md(nb))
            nb.cells.append(mk_cell(f'<p class="formats">This page as <a href="{cfg.git_url}/blob/{cfg.branch}/nbs/{o}">notebook</a> or <a href="{Path(url[o]).name}.md">Markdown</a></p>',
                                    'markdown', id='formats'))
            write_nb(nb, src/doc[o])
    changes = (cfg.config_path/'CHANGELOG.md').read_text().replace('<!-- do not remove -->\n\n', '')
    for name,text in (('commands',reference), ('changes',changes)):
        (src/f'{name}.md').write_text(text)
        (extra/f'{name}.html.md').write_text(text)
    pages['Tools'] += [('Command reference', 'commands.html', 'Every command and its options'),
                       ('Release notes', 'changes.html', 'What there is, and what was renamed')]
    (extra/'llms.txt').write_text(llms(cfg, pages))
    index = myst.read_nb(src/'index.ipynb')
    index.cells += [mk_cell(toctree(s, [u.removesuffix('.html') for _,u,_ in entries if u!='index.html']), 'markdown', id=f'toctree{i}') for i,(s,entries) in enumerate(pages.items())]
    write_nb(index, src/'index.ipynb')
    for p in cfg.nbs_path.rglob('images'): shutil.copytree(p, src/p.relative_to(cfg.nbs_path), dirs_exist_ok=True)
    return cfg,src

@call_parse
def main(
    strict:bool=False # Fail on any warning?
):
    "Build the site in `_docs`"
    from sphinx.cmd.build import build_main
    cfg,src = sources()
    out = here/'_build/html'
    shutil.rmtree(out.parent, ignore_errors=True)
    rc = build_main(['-q','-b','html','-c',str(here)] + (['-W','--keep-going'] if strict else []) + [str(src), str(out)])
    if rc: sys.exit(rc)
    shutil.rmtree(cfg.doc_path, ignore_errors=True)
    shutil.move(out, cfg.doc_path)
    print(f'The site is in {cfg.doc_path.relative_to(cfg.config_path)}: {len(list(cfg.doc_path.rglob("*.html")))} pages')
