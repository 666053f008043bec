"Sphinx reads the documents that `build.py` writes to `_src`; the facts come from nbdev's configuration"
from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml
from nbdev.config import get_config

cfg = get_config()
project,author,version,copyright = cfg.title,cfg.author,cfg.version,cfg.author
extensions = ['myst_nb','sphinx_copybutton']
nb_execution_mode = 'off'
myst_enable_extensions = ['colon_fence','dollarmath','attrs_inline','attrs_block']
myst_heading_anchors,myst_heading_slug_func = 4,'myst.slug'
suppress_warnings = ['myst.header']
html_theme,html_title = 'furo',cfg.title
html_static_path,html_css_files,html_extra_path = ['_static'],['site.css'],['_extra']
html_copy_source,html_show_sphinx,html_use_index = False,False,False
html_math_renderer = 'mathml'
html_theme_options = dict(top_of_page_buttons=[], navigation_with_keys=True,
    light_css_variables={'color-brand-primary':'#5b3f8c', 'color-brand-content':'#5b3f8c'},
    dark_css_variables={'color-brand-primary':'#c3a6ff', 'color-brand-content':'#c3a6ff'},
    footer_icons=[dict(name='GitHub', url=cfg.git_url, html='GitHub')])
pygments_style,pygments_dark_style = 'friendly','github-dark'

def mathml(block):
    "Visitor that writes an equation as MathML, which browsers show without a script"
    def _f(self, node):
        math = tex2mathml(node.astext(), as_block=block).replace('<mo stretchy="false">|</mo>', '<mo stretchy="false" lspace="0" rspace="0">|</mo>')
        self.body.append(f'<div class="equation">{math}</div>' if block else math)
        raise SkipNode
    return _f,None

def setup(app): app.add_html_math_renderer('mathml', mathml(False), mathml(True))
