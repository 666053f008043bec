"The documentation site, as a browser shows it. Needs chromium and chromedriver; the site is built anew where it is older than its sources"
import functools,http.server,inspect,json,re,shutil,subprocess,sys,threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote,urldefrag,urljoin,urlparse
import pytest
from nbdev.config import get_config
from test_docs import public

root = Path(__file__).resolve().parent.parent
out  = root/'_docs'
chromium = shutil.which('chromium') or shutil.which('google-chrome')
needs_browser = pytest.mark.skipif(not (chromium and shutil.which('chromedriver')), reason='no chromium or no chromedriver')
flags = ['--headless=new','--no-sandbox','--disable-gpu','--disable-quic','--no-first-run','--disable-background-networking','--disable-component-update',
         '--disable-sync','--hide-scrollbars','--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1']

@pytest.fixture(scope='session')
def site():
    "Folder of the built site"
    pytest.importorskip('myst_nb')
    sources = [p for o in ('nbs/**/*.ipynb','prp_fastai/**/*.py','docs/*.py','docs/_static/*') for p in root.glob(o) if '.ipynb_checkpoints' not in p.parts]
    if not (out/'index.html').exists() or (out/'index.html').stat().st_mtime<max(p.stat().st_mtime for p in sources):
        res = subprocess.run([sys.executable, root/'docs/build.py', '--strict'], cwd=root, capture_output=True, text=True)
        assert not res.returncode, res.stdout+res.stderr
    return out

@pytest.fixture(scope='session')
def pages(site): return sorted(p.relative_to(site).as_posix() for p in site.rglob('*.html'))

@pytest.fixture(scope='session')
def base(site):
    "Address that serves the site"
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()

@pytest.fixture(scope='session')
def session(tmp_path_factory):
    webdriver = pytest.importorskip('selenium.webdriver')
    opts = webdriver.ChromeOptions()
    opts.binary_location = chromium
    for o in flags+[f'--user-data-dir={tmp_path_factory.mktemp("chromium")}']: opts.add_argument(o)
    opts.set_capability('goog:loggingPrefs', dict(browser='ALL', performance='ALL'))
    browser = webdriver.Chrome(options=opts, service=webdriver.ChromeService(shutil.which('chromedriver')))
    yield browser
    browser.quit()

@pytest.fixture
def browser(session, base):
    "A browser of a desktop's width without a memory, that must have asked nobody but us and complained of nothing when the test is over"
    resize(session, 1280, 900)
    session.get(base+'index.html')
    session.execute_script('localStorage.clear()')
    logs(session)
    yield session
    asked,complaints = logs(session)
    assert not [o for o in asked if not o.startswith((base,'data:','blob:'))]
    assert not complaints

def resize(browser, width, height): browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(width=width, height=height, deviceScaleFactor=1, mobile=width<600))

def logs(browser):
    "Addresses asked for, and errors on the console, since the last call"
    events = [json.loads(o['message'])['message'] for o in browser.get_log('performance')]
    asked = [e['params']['request']['url'] for e in events if e['method']=='Network.requestWillBeSent']
    return [o for o in asked if not o.startswith('chrome')], [o['message'] for o in browser.get_log('browser') if o['level'] in ('SEVERE','WARNING') and 'favicon.ico' not in o['message']]

def wait(browser, f):
    from selenium.webdriver.support.ui import WebDriverWait
    return WebDriverWait(browser, 60).until(lambda _: f())

def find(browser, css): return browser.find_elements('css selector', css)

class Page(HTMLParser):
    "Anchors, links and API entries of a page"
    def __init__(self, path):
        super().__init__()
        self.ids,self.links,self.entries,self.source,self.heading = set(),[],[],None,None
        self.feed(path.read_text())
    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs[o] for o in ('id','name') if o in attrs}
        self.links += [attrs[o] for o in ('href','src') if o in attrs]
        if 'source' in (attrs.get('class') or '').split(): self.source = attrs['href']
        elif self.source and re.fullmatch('h[1-6]', tag): self.heading = ''
        elif self.heading:
            self.entries.append((self.heading, self.source))
            self.source,self.heading = None,None
    def handle_data(self, data):
        if self.heading is not None: self.heading += data

def test_links_lead_somewhere(site, pages):
    parsed = {o: Page(site/o) for o in pages}
    assert len(pages)>20
    broken = []
    for name,page in parsed.items():
        for link in page.links:
            if urlparse(link).scheme in ('http','https','mailto','data','javascript'): continue
            path,anchor = urldefrag(re.sub(r'\?[^#]*', '', unquote(urljoin(name, link))))
            if not (site/path).is_file() or anchor and path in parsed and anchor not in parsed[path].ids: broken.append(f'{name}: {link}')
    assert not broken

def test_every_entry_links_to_its_source(site, pages):
    cfg,n = get_config(root),0
    for o in pages:
        for name,link in Page(site/o).entries:
            found = re.fullmatch(re.escape(f'{cfg.git_url}/blob/{cfg.branch}/')+r'(\S+\.py)#L(\d+)', link)
            assert found, f'{o}: {link}'
            here = (root/found[1]).read_text().splitlines()[int(found[2])-1:][:4]
            assert re.search(rf'^\s*(def|class) {re.escape(name.split(".")[-1])}\b', '\n'.join(here), re.M), f'{o}: {name} is not at {link}'
            n += 1
    assert n>60

def methods(cls):
    "Documented public methods of a class's body"
    fields = getattr(cls, '__dataclass_fields__', {})
    for k,o in vars(cls).items():
        f = getattr(o, '__func__', None) or getattr(o, 'fget', None) or getattr(o, 'f', o)
        if k[0]!='_' and k not in fields and inspect.isfunction(f) and f.__doc__: yield f'{cls.__name__}.{k}'

def test_every_public_name_and_method_has_an_entry(site, pages):
    entries = {name for o in pages for name,_ in Page(site/o).entries}
    code = [o for _,o in public() if inspect.isfunction(o) or inspect.isclass(o)]
    names = [o.__name__ for o in code]+[m for o in code if inspect.isclass(o) for m in methods(o)]
    assert len(names)>300 and not set(names)-entries

def test_pages_have_markdown_and_are_indexed(site, pages):
    index = (site/'llms.txt').read_text()
    for o in pages:
        if o!='search.html':
            assert (site/f'{o}.md').stat().st_size>100, o
            assert f'/{o}.md)' in index, o

@needs_browser
def test_every_page_shows(browser, base, pages):
    for o in pages:
        browser.get(base+o)
        assert wait(browser, lambda: find(browser, 'h1,#search-results')), o
        missing = browser.execute_script('return [...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.src.slice(0,99))')
        assert not missing, f'{o}: {missing}'
        asked,complaints = logs(browser)
        assert not complaints, o
        assert not [a for a in asked if not a.startswith((base,'data:','blob:'))], o
        raw = browser.execute_script('''const a = document.querySelector('[role=main]').cloneNode(true); a.querySelectorAll('pre,code,script,style').forEach(e => e.remove());
            return a.textContent.match(/\\$[^$\\n]+\\$|\\\\(mathcal|frac|lambda)|:::|\\{#fig|!\\[/)''')
        assert not raw, f'{o}: {raw}'

@needs_browser
def test_phone(browser, base, pages):
    "Nothing sticks out on the right, but what scrolls in a box of its own"
    resize(browser, 390, 844)
    for o in pages:
        browser.get(base+o)
        wide = browser.execute_script('''const scrolls = e => e && e.tagName!='ARTICLE' && (['auto','scroll'].includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
            return [...document.querySelectorAll('article *')].filter(e => e.getBoundingClientRect().right>391 && !scrolls(e)).map(e => e.outerHTML.slice(0, 99))''')
        assert not wide, f'{o}: {wide[:3]}'
        assert browser.execute_script('return Math.max(document.documentElement.scrollWidth, innerWidth)')<=390, o

@needs_browser
def test_mathematics_without_a_script(browser, base):
    for o in ('motion.html','losses.html','index.html'):
        browser.get(base+o)
        shapes = browser.execute_script("return [...document.querySelectorAll('math')].map(m => [m.getBoundingClientRect().width, m.getBoundingClientRect().height])")
        assert len(shapes)>=4 and all(w>4 and h>4 for w,h in shapes), o
    browser.get(base+'losses.html')
    assert browser.execute_script("const f = document.querySelector('mfrac'); return f.children[0].getBoundingClientRect().bottom<=f.children[1].getBoundingClientRect().top+2")

@needs_browser
def test_search(browser, base):
    browser.get(base+'index.html')
    find(browser, 'input[name=q]')[0].send_keys('motion attention\n')
    wait(browser, lambda: find(browser, '#search-results ul.search li a'))
    wait(browser, lambda: 'found' in find(browser, '#search-results')[0].text)
    assert urlparse(find(browser, '#search-results ul.search li a')[0].get_attribute('href')).path=='/motion.html'

@needs_browser
def test_from_tutorial_to_source(browser, base):
    browser.get(base+'tutorials/quickstart.html')
    link = find(browser, 'article a[href="../learner.html#prp-learner"]')[0]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", link)
    link.click()
    wait(browser, lambda: browser.current_url==base+'learner.html#prp-learner')
    wait(browser, lambda: 0<=browser.execute_script("return document.querySelector(':target h2').getBoundingClientRect().top")<900)
    source = browser.execute_script('''const e = document.querySelector(':target h2');
        return [...document.querySelectorAll('a.source')].find(a => e.compareDocumentPosition(a) & Node.DOCUMENT_POSITION_FOLLOWING).href''')
    file,line = re.search(r'/blob/main/(\S+)#L(\d+)$', source).groups()
    assert 'def prp_learner' in '\n'.join((root/file).read_text().splitlines()[int(line)-1:int(line)+3])

@needs_browser
def test_dark_mode(browser, base):
    def brightness(css): return browser.execute_script('return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]].match(/[\\d.]+/g).slice(0,3).reduce((a,b) => a+ +b, 0)/3', *css)
    browser.get(base+'losses.html')
    for theme in ('light','dark'):
        for _ in range(3):
            if browser.execute_script('return document.body.dataset.theme')!=theme: browser.execute_script("document.querySelector('.content-icon-container .theme-toggle').click()")
        wait(browser, lambda: browser.execute_script('return document.body.dataset.theme')==theme)
        back,text,formula = brightness(('body','backgroundColor')),brightness(('article p','color')),brightness(('math','color'))
        assert (back>200 and text<120 and formula<120) if theme=='light' else (back<60 and text>150 and formula>150)
    browser.get(base+'motion.html')
    assert browser.execute_script('return document.body.dataset.theme')=='dark'

def test_the_command_reference_has_every_option_and_none_that_is_hidden(site):
    text = (site/'commands.html').read_text()
    assert '--clip-len' in text and 'SUPPRESS' not in text and '--pdb' not in text
