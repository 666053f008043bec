"The page that looks at videos, asked as a browser would"
import inspect,pytest,signal,socket,subprocess
from fastcore.test import test_eq
from prp_fastai.all import *
from test_cli import bin,fork

client = pytest.importorskip('gradio_client')

def ask(url, path): return client.Client(url, verbose=False).predict(client.handle_file(path), api_name='/look')

@pytest.fixture(scope='module')
def files(): return get_video_files(sample_videos())[::6]

@pytest.fixture(scope='module')
def classifier(files):
    "With random weights"
    dls = VideoDataLoaders.from_df(pd.DataFrame(dict(path=files, label=files.map(parent_label))), size=32, bs=4, num_workers=0)
    return video_learner(dls, 'c3d', width=.05)

@pytest.fixture(scope='module')
def page(files, classifier):
    "The address of a page with all parts"
    app = video_app(load_model('sample-rate'), classifier, VideoIndex.from_learner('sample', files, num_workers=0))
    yield app.launch(prevent_thread_lock=True, quiet=True, inline=False)[1]
    app.close()

def test_a_video_is_answered_in_words_and_pictures(page, files):
    plt.figure()
    before = plt.get_fignums()
    said,*pictures = ask(page, files[1])
    model = load_model('sample-rate')
    test_eq(said, rate_sentence(rate_of(model, files[1]), rate_segments(rate_curve(model, files[1]))))
    test_eq(len(pictures), 3)
    assert all(o['plot'].startswith('data:image/') for o in pictures)
    test_eq(plt.get_fignums(), before)
    plt.close()

def test_what_cannot_be_looked_at_is_answered_with_the_reason(page, files, tmp_path):
    short = write_video(tmp_path/'short.mp4', read_frames(files[0], range(9)))
    with pytest.raises(client.exceptions.AppError, match='too few for a window'): ask(page, short)
    (tmp_path/'broken.mp4').write_text('no video')
    with pytest.raises(client.exceptions.AppError, match='cannot be looked at'): ask(page, tmp_path/'broken.mp4')
    with pytest.raises(client.exceptions.AppError, match='no video yet'):
        client.Client(page, verbose=False).predict(None, api_name='/look')

def test_without_gradio_it_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    with pytest.raises(ImportError, match='pip install gradio'): video_app(load_model('sample-rate'))
    with pytest.raises(SystemExit) as e: run_command(inspect.unwrap(prp_app), prp_app.parser(), [])
    said = capsys.readouterr().err
    assert e.value.code==2 and said.startswith('prp-app: ') and 'pip install gradio' in said and said.count('\n')==1

@pytest.mark.parametrize('sure,kinds,said', [
    (True, ['as filmed','slow motion','unsure'], 'whole video: as filmed (1×); 1.0 to 2.0 s: slow motion (0.5×)'),
    (False, ['unsure'], 'whole video: unsure')])
def test_sentence(sure, kinds, said):
    rates = dict(zip(('as filmed','slow motion','unsure'), (1.,.5,np.nan)))
    segments = pd.DataFrame([dict(start=float(i), end=i+1., kind=o, rate=rates[o]) for i,o in enumerate(kinds)])
    test_eq(rate_sentence(dict(rate=1., sure=sure), segments), said)

def test_prp_app_from_the_shell(files, classifier, tmp_path):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    model = save_model(classifier, tmp_path/'model.safetensors')
    (tmp_path/'few').mkdir()
    for o in files[:4]: shutil.copy(o, tmp_path/'few')
    args = [bin/'prp-app', '--port', port, '--model', model, '--videos', tmp_path/'few']
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL) # A job in the background of a shell ignores ctrl-C, and so would the app
    with open(tmp_path/'log', 'w') as log: p = subprocess.Popen(list(map(str, args)), stdout=log, stderr=log, cwd=tmp_path, preexec_fn=heed)
    try:
        for _ in range(600):
            if p.poll() is not None: break
            with socket.socket() as s:
                if s.connect_ex(('127.0.0.1', port)): time.sleep(.2)
                else: break
        assert p.poll() is None, (tmp_path/'log').read_text()
        said,*pictures = ask(f'http://127.0.0.1:{port}', files[0])
        test_eq(len(pictures), 3)
        assert said.startswith('whole video: ')
    finally:
        p.send_signal(signal.SIGINT)
        p.wait(120)
    assert f'http://127.0.0.1:{port}' in (tmp_path/'log').read_text()

def test_prp_app_refuses_other_models(files, tmp_path):
    assert 'sample is no rate model' in fork('prp-app', '--rates', 'sample', ok=False)
    assert 'sample-rate is no classifier' in fork('prp-app', '--model', 'sample-rate', ok=False)
