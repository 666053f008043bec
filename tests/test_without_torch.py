"Timelines of exported classifiers: the same pixels and answers as with torch, in a process that does not import it"
import subprocess,sys
import av,pytest
from fastcore.test import test_eq,test_close
from prp_fastai.all import *
from prp_fastai.cli.timeline import prp_timeline

@pytest.fixture(scope='module')
def learn():
    df = read_ucf101(sample_videos(), 1)
    dls = VideoDataLoaders.from_df(df, label_col='label', fn_col='path', test_col='is_test', size=32, bs=8, num_workers=0)
    set_seed(0)
    return video_learner(dls, 'c3d', width=.0625)

@pytest.fixture(scope='module')
def onnx(learn, tmp_path_factory): return to_onnx(learn, tmp_path_factory.mktemp('onnx')/'model.onnx')

@pytest.fixture
def video(): return get_video_files(sample_videos())[0]

def same(a, b):
    test_eq(a[['start','end','label']], b[['start','end','label']])
    assert np.abs(np.stack(a.probs)-np.stack(b.probs)).max()<1e-4
    test_eq(a.attrs['reason'], b.attrs['reason'])

@pytest.mark.parametrize('every,bs', [(.5,16), (.1,7), (3.,1)])
def test_the_timeline_is_that_of_torch(learn, onnx, video, every, bs):
    same(OnnxClassifier(onnx).timeline(video, every, bs), learn.timeline(video, every))

def test_unusual_files(learn, onnx, video, tmp_path):
    frames = read_frames(video, range(60))
    odd = write_video(tmp_path/'odd.avi', read_frames(video, range(60), size=(50,74)), codec='mpeg4', bf=2, fps=12)
    turned = tmp_path/'turned.mp4'
    with av.open(str(write_video(tmp_path/'plain.mp4', frames))) as a, av.open(str(turned), 'w') as b:
        out = b.add_stream_from_template(a.streams.video[0])
        for p in a.demux(a.streams.video[0]):
            if p.dts is not None: p.stream = out; b.mux(p)
    cut = tmp_path/'cut.ts'
    whole = write_video(tmp_path/'whole.ts', frames, g=12)
    cut.write_bytes(whole.read_bytes()[:int(whole.stat().st_size*.7)])
    for o in (odd,turned,cut): same(OnnxClassifier(onnx).timeline(o), learn.timeline(o))

def test_labels_that_do_not_exclude_each_other(video, tmp_path):
    files = get_video_files(sample_videos())[:8]
    df = pd.DataFrame(dict(path=files, label=['a','b','a;b','b']*2))
    dls = VideoDataLoaders.from_df(df, label_delim=';', size=32, bs=4, num_workers=0)
    learn = video_learner(dls, 'c3d', width=.0625)
    same(OnnxClassifier(to_onnx(learn, tmp_path/'m.onnx')).timeline(video), learn.timeline(video))

def test_it_imports_no_torch_and_reads_a_video_in_less_memory(onnx, video):
    code = f'''import sys
from prp_fastai.cli.timeline import *
from prp_fastai.without_torch import *
OnnxClassifier({str(onnx)!r}, 1).timeline({str(video)!r})
print([o for o in ('torch','fastai','torchvision','matplotlib') if o in sys.modules])
print(next(int(o.split()[1])/1024 for o in open('/proc/self/status') if o.startswith('VmHWM')))'''
    *_,loaded,most = subprocess.run([sys.executable,'-c',code], capture_output=True, text=True, check=True).stdout.splitlines()
    test_eq(loaded, '[]')
    assert float(most)<400

def test_mistakes(learn, onnx, video, tmp_path, capsys, monkeypatch):
    (tmp_path/'text.onnx').write_text('no model')
    short = write_video(tmp_path/'short.mp4', read_frames(video, range(9)))
    for model,path,said in ((tmp_path/'missing.onnx',video,'is not a file'), (tmp_path/'text.onnx',video,'is no ONNX model'),
                            (onnx,tmp_path/'missing.mp4','No such file'), (onnx,short,'too few for a window of 16')):
        with pytest.raises(SystemExit) as e: prp_timeline(str(path), str(model), str(tmp_path/'out.csv'))
        test_eq(e.value.code, 2)
        assert said in (err := capsys.readouterr().err) and 'Traceback' not in err
        assert not (tmp_path/'out.csv').exists()
    with pytest.raises(ValueError, match='every must be positive'): OnnxClassifier(onnx).timeline(video, 0)
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(ImportError, match='pip install'): OnnxClassifier(onnx)

def test_a_frame_rate_of_its_own_is_refused(video, tmp_path):
    df = read_ucf101(sample_videos(), 1)
    dls = VideoDataLoaders.from_df(df, label_col='label', fn_col='path', test_col='is_test', size=32, bs=8, num_workers=0, fps=12.5)
    fname = to_onnx(video_learner(dls, 'c3d', width=.0625), tmp_path/'m.onnx')
    with pytest.raises(ValueError, match='12.5 frames per second'): OnnxClassifier(fname)

def test_threads_are_those_asked_for(onnx):
    for n in (0,1): test_eq(OnnxClassifier(onnx, n).session.get_session_options().intra_op_num_threads, n)

def test_the_command_from_a_shell(onnx, video, tmp_path):
    out = tmp_path/'timeline.csv'
    script = tmp_path/'prp-timeline' # What an installer writes
    script.write_text('import sys\nfrom prp_fastai.cli.timeline import prp_timeline\nif __name__=="__main__": sys.exit(prp_timeline())')
    res = subprocess.run([sys.executable, str(script), str(video), str(onnx), '--out', str(out), '--every', '1', '--change', '0', '--threads', '1'], capture_output=True, text=True)
    test_eq((res.returncode, res.stdout.strip()), (0, f'written: {out}'))
    want = events(OnnxClassifier(onnx).timeline(video, 1), 0)
    found = pd.read_csv(out)
    test_eq(found.label.tolist(), want.label.tolist())
    test_close(found.end.to_numpy(), want.end.to_numpy(), 1e-3)
