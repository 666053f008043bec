"A collection on one page: order, near duplicates, what is left out, and the page in a browser"
import json,numpy as np,pytest,shutil
from fastcore.test import test_eq
from prp_fastai.all import *
from test_cli import fork
from test_site import chromium,flags

@pytest.fixture(scope='module')
def files(): return get_video_files(sample_videos())[::4]

@pytest.mark.parametrize('how', ['pca','tsne'])
def test_map(how):
    x = np.random.default_rng(0).normal(size=(20,6))
    x[10:] += 20
    xy = map_of(x, how)
    within = np.linalg.norm(xy[:10]-xy[:10].mean(0), axis=1).mean()
    assert xy.shape==(20,2) and np.linalg.norm(xy[:10].mean(0)-xy[10:].mean(0))>within
    test_eq(map_of(x, how), xy)

def test_map_says_what_it_lacks(monkeypatch):
    monkeypatch.setitem(sys.modules, 'umap', None)
    with pytest.raises(ImportError, match='pip install umap-learn'): map_of(np.zeros((9,3)), 'umap')
    with pytest.raises(ValueError, match='how must be'): map_of(np.zeros((9,3)), 'som')

def test_k_centre_takes_every_cluster_first():
    "Ten clusters of very different sizes: the first ten lie in ten of them"
    rng = np.random.default_rng(0)
    which = np.repeat(np.arange(10), [100,50,20,9,8,7,3,2,1,1])
    x = np.eye(10)[which]*50+rng.normal(size=(len(which),10))
    at = k_centre(x, 10)
    test_eq(len(set(which[at])), 10)
    test_eq(k_centre(x, 5), at[:5])
    test_eq(len(k_centre(x, 10**6)), len(x))

@pytest.mark.parametrize('block', [1,5])
def test_near_duplicates_by_definition(block):
    "Every pair once, also across the blocks they are computed in"
    rng = np.random.default_rng(block)
    x = rng.normal(size=(1030 if block==1 else 40, 24))
    x[-1],x[3] = x[0],x[2]+.01
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    found = near_duplicates(x)
    r = np.triu(x@x.T, 1)
    test_eq(set(zip(found.a, found.b)), set(zip(*np.nonzero(r>=.92))))
    assert {(0,len(x)-1),(2,3)}<=set(zip(found.a, found.b)) and found.correlation.is_monotonic_decreasing

def test_near_duplicates_of_films(files, tmp_path):
    x = read_frames(files[2], range(probe(files[2]).n_frames), size=(120,160)).as_subclass(Tensor)
    made = [write_video(tmp_path/'anew.mp4', x, crf=38), write_video(tmp_path/'dark.mp4', (x*.8).to(torch.uint8)), write_video(tmp_path/'cut.mp4', x[:,10:])]
    looks = [o for o,_ in looks_of([*files, *made])]
    found = near_duplicates(signatures(looks))
    test_eq(set(found.a)|set(found.b), {2,len(files),len(files)+1,len(files)+2})

def test_black_videos_do_not_divide_by_zero():
    assert np.isfinite(signatures([torch.zeros(3,8,72,96, dtype=torch.uint8)])).all()

def test_what_cannot_be_read_is_left_out_and_named(files, tmp_path, capsys):
    (tmp_path/'broken.mp4').write_text('no video')
    some = [*files[:3], tmp_path/'broken.mp4', *files[3:8]]
    table = explore_videos('sample', some, tmp_path/'out', dict(label=list('abcdefghi')), how='pca', k=4)
    assert 'broken.mp4 is left out' in capsys.readouterr().out
    test_eq(table.label.tolist(), list('abcefghi'))
    kept = pd.read_parquet(tmp_path/'out/features.parquet')
    test_eq(kept.path.tolist(), [str(o) for o in some if o.exists() and o.name!='broken.mp4'])
    one = pooled_features('sample', [files[5]], num_workers=0)[0]
    np.testing.assert_allclose(np.stack(kept.feature)[kept.path==str(files[5])][0], one, atol=1e-4)
    test_eq(len(pd.read_csv(tmp_path/'out/label_next.csv')), 4)
    with pytest.raises(ValueError, match='five videos'): explore_videos('sample', files[:3], tmp_path/'few', how='pca')

def test_without_pyarrow_it_says_so(files, tmp_path, monkeypatch, capsys):
    def missing(*args, **kwargs): raise ImportError
    monkeypatch.setattr(pd.DataFrame, 'to_parquet', missing)
    explore_videos('sample', files[:5], tmp_path/'out', how='pca')
    assert 'pip install pyarrow' in capsys.readouterr().out and (tmp_path/'out/index.html').exists()

def test_the_page_in_a_browser(files, tmp_path):
    webdriver = pytest.importorskip('selenium.webdriver')
    if not (chromium and shutil.which('chromedriver')): pytest.skip('no chromium or no chromedriver')
    copy = tmp_path/'</script><b>copy.mp4'.replace('/', '_')
    shutil.copy(files[0], copy)
    explore_videos('sample', [*files, copy], tmp_path/'out', dict(label=[o.parent.name for o in files]+['copy']), k=5)
    opts = webdriver.ChromeOptions()
    opts.binary_location = chromium
    for o in flags+[f'--user-data-dir={tmp_path/"browser"}']: opts.add_argument(o)
    opts.set_capability('goog:loggingPrefs', dict(browser='ALL', performance='ALL'))
    browser = webdriver.Chrome(options=opts, service=webdriver.ChromeService(shutil.which('chromedriver')))
    try:
        browser.get((tmp_path/'out/index.html').as_uri())
        def js(o): return browser.execute_script(f'return {o}')
        test_eq([o.text for o in browser.find_elements('css selector', '#by option')], ['label','seconds'])
        test_eq(len(browser.find_elements('css selector', '#legend span')), 16)
        test_eq(len(browser.find_elements('css selector', '#next figure')), 5)
        test_eq(len(browser.find_elements('css selector', '.pair')), 1)
        assert js("[...document.images].every(o => o.complete && o.naturalWidth>100)")
        x,y = js('at(videos[3])')
        js(f"canvas.dispatchEvent(new MouseEvent('mousemove', {{clientX: canvas.getBoundingClientRect().left+{x}, clientY: canvas.getBoundingClientRect().top+{y}}}))")
        assert js("document.querySelector('#tip').style.display")=='block' and js("document.querySelector('#tip img').naturalWidth")>100
        test_eq(len(js("(by.value='seconds', draw(), [...document.querySelectorAll('#legend span')])")), 3)
        asked = [json.loads(o['message'])['message'] for o in browser.get_log('performance')]
        urls = [o['params']['request']['url'] for o in asked if o['method']=='Network.requestWillBeSent']
        assert urls and not [o for o in urls if o.startswith(('http','ws'))]
        assert not [o for o in browser.get_log('browser') if o['level']=='SEVERE']
    finally: browser.quit()

def test_prp_explore_from_the_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read_ucf101(sample_videos()).tail(9).to_csv('videos.csv', index=False)
    said = fork('prp-explore', 'videos.csv', '--labels', '--how', 'pca', '--rates', 'sample-rate', '--k', 7)
    assert said.splitlines()[-2]=='written: explored/index.html' and '9 of 9 videos' in said
    test_eq(list(pd.read_csv('explored/label_next.csv').columns), ['path','label','rate','seconds'])

def test_k_centre_goes_on_from_what_is_known():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(40,5))
    first = k_centre(x, 6)
    test_eq(first+k_centre(x, 6, known=first), k_centre(x, 12))
    known = [3,8,8,31]
    rest = k_centre(x, 10**6, known)
    test_eq(sorted(rest+[3,8,31]), list(range(40)))
    dist = np.linalg.norm((x/x.std(0))[:,None]-(x/x.std(0))[[3,8,31]], axis=-1).min(1)
    test_eq(rest[0], int(dist.argmax()))

def test_k_centre_takes_no_video_twice():
    "Also of copies, whose distance is 0"
    test_eq(sorted(k_centre(np.ones((7,3)), 7)), list(range(7)))

def test_what_is_labelled_is_not_suggested(tmp_path, monkeypatch, files):
    "Round after round, from a folder that is named relative to where the command runs"
    monkeypatch.chdir(tmp_path)
    Path('clips').mkdir()
    for o in files[:9]: shutil.copy(o, 'clips')
    def explore(*args): return fork('prp-explore', 'clips', '--how', 'pca', '--k', 4, *args)
    explore()
    first = pd.read_csv('explored/label_next.csv').assign(label='a')
    first[['path','label']].to_csv('explored/label_next.csv', index=False)
    said = explore('--labelled', 'explored/label_next.csv', '--out', 'again')
    assert '4 of 9 videos have a label in explored/label_next.csv, which names 4' in said
    second = pd.read_csv('again/label_next.csv')
    test_eq((len(second), len(set(first.path)|set(second.path))), (4,8))
    kept = pd.read_parquet('again/features.parquet')
    test_eq(kept.labelled.notna().sum(), 4)
    test_eq([str(Path(o).absolute()) for o in kept.path[kept.labelled.notna()]], sorted(first.path))
    all_known = pd.concat([kept.assign(label='a'), first])[['path','label']]
    all_known.assign(path=all_known.path.map(os.path.abspath)).drop_duplicates('path').to_csv('all.csv', index=False)
    explore('--labelled', 'all.csv', '--out', 'none')
    nothing = pd.read_csv('none/label_next.csv')
    test_eq((list(nothing.columns),len(nothing)), (['path'],0))
    with pytest.raises(ValueError, match='1 of 2 labelled videos are not among the files'):
        explore_videos('sample', files[:6], tmp_path/'other', how='pca', labelled=[files[0], files[10]])
    others = pd.DataFrame(dict(path=[str(files[10])], label='a'))
    others.to_csv('others.csv', index=False)
    assert 'none of the 1 videos of others.csv' in fork('prp-explore', 'clips', '--labelled', 'others.csv', ok=False)
