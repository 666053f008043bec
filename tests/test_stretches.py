"Windows of videos, and stretches that happen again"
import numpy as np,pytest
from fastcore.test import test_eq
from prp_fastai.all import *

@pytest.fixture(scope='module')
def files(): return get_video_files(sample_videos())[::5]

@pytest.fixture(scope='module')
def windows(files): return window_features('sample', files)

def test_windows_are_those_of_clips(files, windows):
    one = windows[windows.path==str(files[2])]
    net = load_encoder('sample').eval()
    for row in one.itertuples():
        i = round(row.start*25)
        x = CropVideo(56)((read_frames(files[2], range(i, i+16), size=frame_size(56)),), split_idx=1)[0].as_subclass(Tensor)
        with torch.no_grad(): np.testing.assert_allclose(row.feature, mean_pool(net(x[None].float()/255))[0], atol=1e-5)
    test_eq(one.start.round(2).tolist(), list(range(len(one))))

def test_a_stretch_finds_itself_elsewhere(files, windows, tmp_path):
    x,y = (read_frames(o, range(120), size=(120,160)) for o in files[:2])
    mixed = write_video(tmp_path/'mixed.mp4', torch.cat([x[:,:50], y[:,25:75], x[:,50:]], 1), fps=25, crf=8)
    every = pd.concat([windows, window_features('sample', [mixed])], ignore_index=True)
    others = every[every.path!=str(files[1])].reset_index(drop=True)
    found = find_stretch(others, 'sample', files[1], 1, 3)
    test_eq((found.path[0], found.start[0]), (str(mixed), 2.))
    assert found.similarity.is_monotonic_decreasing and len(found)==5 and found.similarity.between(-1, 1).all()

def test_the_stretch_itself_is_no_answer(files, windows):
    found = find_stretch(windows, 'sample', files[0], 1, 3, k=10**6)
    own = found[found.path==str(files[0])]
    assert len(own) and ((own.end<=1) | (own.start>=3)).all()
    test_eq(set(found.path), set(windows.path))

def test_order_of_windows_counts():
    "Two films with the same windows in another order: the one in order comes first"
    a,b = np.eye(4)[0],np.eye(4)[1]
    rows = [('x',0,b),('x',1,a),('y',0,a),('y',1,b),('z',0,np.eye(4)[2]),('z',1,np.eye(4)[3])]
    windows = pd.DataFrame([dict(path=p, start=float(t), end=t+.6, feature=f) for p,t,f in rows])
    from prp_fastai import stretches
    with pytest.MonkeyPatch.context() as m:
        m.setattr(stretches, '_windows', lambda *args: [dict(path='q', start=t, end=t+.6, feature=f) for t,f in ((0.,a),(1.,b))])
        found = find_stretch(windows, 'sample', 'q', 0, 2)
    test_eq((found.path[0], found.start[0]), ('y',0.))

def test_no_window_and_no_video(files, windows, tmp_path, capsys):
    for a,b in ((1,1.3),(1e4,1e5)):
        with pytest.raises(VideoError, match='no window of 16 frames'): find_stretch(windows, 'sample', files[0], a, b)
    (tmp_path/'broken.mp4').write_text('no video')
    assert len(window_features('sample', [tmp_path/'broken.mp4']))==0 and 'it is left out' in capsys.readouterr().out
