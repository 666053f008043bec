"Turn the notebooks that nbdev has processed for Quarto into notebooks that Sphinx can render, and into Markdown"
import os,re,yaml
from pathlib import Path
from textwrap import indent
from fastcore.utils import store_attr
from fastcore.nbio import read_nb,mk_cell

_callout = re.compile(r'^(:{3,})\s*\{\.callout-(\w+)([^}]*)\}\s*\n(.*?)^\1\s*$', re.M|re.S)
_figure  = re.compile(r'!\[([^\]]*)\]\(([^)]+)\)\{([^}]*)\}')
_badge   = re.compile(r'\[!\[([^\]]*)\]\(https?://[^)]*\)\]\(([^)]*)\)')
_option  = re.compile(r'^#\|\s*([\w-]+)\s*:?\s*(.*)\n?', re.M)
_source  = re.compile(r'\[source\]\(([^)]*)\)\{[^}]*\}\n*')
_remote  = re.compile(r'<link\b[^>]*\bhref="https?://[^>]*>')
_tags = {('echo','false'):'remove-input', ('output','false'):'remove-output', ('code-fold','true'):'hide-input', ('code-fold','show'):'hide-input'}

def slug(s):
    "The anchor that Pandoc gives a heading, so that nbdev's links work whichever renderer made the site"
    return re.sub(r'\s+', '-', re.sub(r'[^\w\s.-]', '', s.lower()).strip())

def front_matter(nb):
    "Title, description and output file that nbdev wrote in the first cell"
    return yaml.safe_load(nb.cells[0].source.strip().strip('-'))

def callout(m):
    "A Quarto callout as a MyST admonition"
    _,kind,opts,body = m.groups()
    title,body = re.match(r'\s*(?:#+[ \t]+([^\n]*)\n)?\s*(.*)', body, re.S).groups()
    fold = 'dropdown' if 'collapse="true"' in opts else ''
    return f':::{{admonition}} {title or kind.title()}\n:class: {dict(caution="danger").get(kind, kind)} {fold}\n\n{body.rstrip()}\n:::'

def figure(m):
    "A Quarto image with attributes as a MyST figure, or as an image where it has no caption"
    cap,src,attrs = m.groups()
    opts = ''.join(f':{k}: {v[1]}\n' for k,v in (('name', re.search(r'#([\w-]+)', attrs)), ('width', re.search(r'width="?([\w%]+)', attrs)),
                                                 ('alt', re.search(r'fig-alt="([^"]+)"', attrs))) if v)
    return f':::{{{"figure" if cap else "image"}}} {src}\n{opts}\n{cap}\n:::'

class Myst:
    "Converts one notebook at a time"
    def __init__(self,
        base, # Address of the site
        pages, # Address of each page in the site -> document
        notebooks # Notebook, relative to `nbs` -> document
    ):
        store_attr()
        self.own = re.compile(rf'\]\({re.escape(base.rstrip("/"))}/([^)#]*\.html)(#[^)]*)?\)')

    def links(self, s, doc, nb):
        "Links to this site and between notebooks become relative ones, which Sphinx checks"
        def to(o): return os.path.relpath(o, Path(doc).parent)
        def own(m): return f']({to(self.pages[m[1]])}{m[2] or ""})' if m[1] in self.pages else m[0]
        def other(m):
            o = self.notebooks.get(os.path.normpath(Path(nb).parent/m[1]))
            return f']({to(o)}{m[2] or ""})' if o else m[0]
        return re.sub(r'\]\(([^):#]+\.ipynb)(#[^)]*)?\)', other, self.own.sub(own, s))

    def markdown(self, s): return _badge.sub(r'[\1](\2)', _figure.sub(figure, _callout.sub(callout, s)))

    def symbol(self, s):
        "The Markdown of `show_doc`: a rule, the link to the source, and a heading"
        src = _source.search(s)
        s = re.sub(r'^#+ .*$', lambda m: m[0].replace('_', r'\_'), _source.sub('', s).removeprefix('---').replace('__main__.', '').strip(), count=1, flags=re.M)
        return f'<div class="symbol"><a class="source" href="{src[1]}">source</a></div>\n\n{s}' if src else s

    def output(self, o):
        "An output without what it would fetch from the network; nothing where it shows nothing"
        if html := o.get('data', {}).get('text/html'):
            o['data']['text/html'] = html = _remote.sub('', ''.join(html))
            if not re.sub(r'<style.*?</style>', '', html, flags=re.S).strip(): return
        return o

    def code(self, cell):
        "Quarto's options become tags; what `show_doc` shows becomes Markdown"
        opts = dict(_option.findall(cell.source))
        cell.source = _option.sub('', cell.source)
        outs = [o for o in map(self.output, cell.get('outputs', [])) if o]
        if cell.source.lstrip().startswith('show_doc'): return mk_cell(self.symbol(''.join(outs[0]['data']['text/markdown'])) if outs else '', 'markdown')
        cell.outputs = outs
        cell.metadata = dict(tags=[t for o,t in _tags.items() if o in opts.items()], mystnb={})
        if 'fig-cap' in opts: cell.metadata['mystnb']['figure'] = dict(caption=opts['fig-cap'].strip('"'), name=opts.get('label', ''))
        if 'fig-alt' in opts: cell.metadata['mystnb']['image'] = dict(alt=opts['fig-alt'].strip('"'))
        if 'code-summary' in opts: cell.metadata['mystnb']['code_prompt_show'] = opts['code-summary'].strip('"')
        return cell

    def __call__(self, path, name, doc):
        "The notebook at `path`, called `name` in `nbs`, as the document `doc`"
        nb = read_nb(path)
        fm = front_matter(nb)
        cells = [mk_cell(f'# {fm["title"]}\n\n*{fm["description"].strip()}*', 'markdown')]
        for c in nb.cells[1:]:
            if c.source.startswith('<!-- WARNING'): continue
            if c.cell_type=='markdown': c.source = self.markdown(c.source)
            elif c.cell_type=='code': c = self.code(c)
            if c.cell_type=='markdown': c.source = self.links(c.source, doc, name)
            if c.source.strip(): cells.append(c)
        nb['cells'] = cells
        nb['metadata'] = dict(kernelspec=dict(name='python3', display_name='python3', language='python'), language_info=dict(name='python'))
        for i,c in enumerate(cells): c['id'] = f'cell{i}'
        return nb,fm

def to_md(nb):
    "`nb` as Markdown, for readers that want no HTML"
    res = []
    for c in nb.cells:
        if c.cell_type=='markdown':
            s = re.sub(r'<div class="symbol">.*?</div>\n*', '', c.source)
            res.append(re.sub(r'\]\(([^):#]+)\.ipynb(#[^)]*)?\)', r'](\1.html.md\2)', re.sub(r'^#+ .*$', lambda m: m[0].replace(r'\_', '_'), s, flags=re.M)))
        elif c.cell_type=='code':
            if 'remove-input' not in c.metadata['tags']: res.append(f'```python\n{c.source.rstrip()}\n```')
            for o in c.outputs:
                text = ''.join(o.get('text') or o['data'].get('text/plain', '')).rstrip()
                if 'image/png' not in o.get('data', {}) and text: res.append(indent(text, '    '))
    return '\n\n'.join(res)+'\n'
