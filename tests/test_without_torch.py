"Timelines of exported classifiers: the same pixels and answers as with torch, in a process that does not import it"
import subprocess,sys
import av,pytest
from fastcore.test import test_eq,test_close
from prp_fastai.all import *
from prp_fastai.cli.timeline import prp_timeline

@pytest.fixture(scope='module')
def learn():
    "A classifier whose answers change with each pixel: a trained encoder under large weights"
    df = read_ucf101(sample_videos(), 1)
    dls = VideoDataLoaders.from_df(df, label_col='label', fn_col='path', test_col='is_test', size=56, bs=8, num_workers=0)
    set_seed(0)
    res = video_learner(dls, encoder='sample')
    res.model.head[-1].weight.data.mul_(10)
    return res

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
    "B-frames without an index, a rotated video, the rest of one that was cut off"
    frames = read_frames(video, range(60))
    odd = write_video(tmp_path/'odd.avi', read_frames(video, range(60), size=(50,74)), codec='mpeg4', bf=2, fps=12)
    with av.open(str(tmp_path/'turned.mp4'), 'w') as c:
        s = c.add_stream('libx264', rate=25)
        s.height,s.width,s.pix_fmt = *frames.shape[2:],'yuv420p'
        s.set_display_rotation(90)
        for f in frames.permute(1,2,3,0).numpy(): c.mux(s.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(f), format='rgb24')))
        c.mux(s.encode(None))
    assert probe(tmp_path/'turned.mp4').height==frames.shape[3]
    whole,cut = write_video(tmp_path/'whole.ts', frames, g=12),tmp_path/'cut.ts'
    cut.write_bytes(whole.read_bytes()[:int(whole.stat().st_size*.7)])
    assert 30<probe(cut).n_frames<60
    for o in (odd,tmp_path/'turned.mp4',cut): same(OnnxClassifier(onnx).timeline(o, .2), learn.timeline(o, .2))

def test_what_decodes_before_an_error_is_predicted(learn, onnx, video, monkeypatch, capsys):
    real = VideoReader.arrays_in_parts
    def torn(self, n=256, *args, **kwargs):
        yield next(real(self, 40, *args, **kwargs))
        raise VideoError(self.path, 'the tail is missing')
    monkeypatch.setattr(VideoReader, 'arrays_in_parts', torn)
    mine,said,want = OnnxClassifier(onnx).timeline(video, .2),capsys.readouterr().out,learn.timeline(video, .2)
    same(mine, want)
    assert len(mine)>2 and mine.end.max()<=40/25 and 'the tail is missing' in mine.attrs['reason'] and 'the tail is missing' in said

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

def test_a_video_of_which_nothing_decodes_has_no_timeline(onnx, video, monkeypatch):
    def torn(self, **kwargs):
        raise VideoError(self.path, 'its head is missing')
        yield
    monkeypatch.setattr(VideoReader, 'arrays_in_parts', torn)
    with pytest.raises(VideoError, match='decoding ended early: its head is missing'): OnnxClassifier(onnx).timeline(video)

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
