"Rates of videos: times, evidence, segments, and what is said where nothing can be said"
import numpy as np,pytest
from fastcore.test import test_eq
from prp_fastai.all import *
from test_cli import fork

@pytest.fixture(scope='module')
def model(): return load_model('sample-rate')

@pytest.fixture(scope='module')
def run(): return next(o for o in get_video_files(sample_videos()) if o.parent.name=='Run')

def frames_of(path): return read_frames(path, range(probe(path).n_frames), size=(120,160))

@pytest.mark.parametrize('fps', [24,25,30,50,60])
def test_frames_are_those_on_screen(fps):
    times = np.arange(200)/fps
    for s in (1,1.7,3):
        idxs = clip_frames(times, 1.5, s)
        wanted = 1.5+(np.arange(16)-7.5)*s/25
        if not len(idxs): continue
        assert (np.diff(idxs)>=0).all() and (times[idxs]<=wanted+2e-3).all() and (wanted-times[idxs]<1/fps+1e-3).all()

def test_readings_that_do_not_fit_or_repeat_frames_are_left_out():
    assert len(clip_frames(np.arange(100)/25, .1, 1))==0
    assert len(clip_frames(np.arange(100)/25, 3.9, 1))==0
    assert len(clip_frames(np.arange(100)/12.5, 4, 1))==0 and len(clip_frames(np.arange(100)/12.5, 4, 2))==16

def test_the_stated_frame_rate_counts(model, run, tmp_path):
    "The same frames at another frame rate: the rate changes by as much"
    x = frames_of(run)
    slow,same,fast = (rate_of(model, write_video(tmp_path/f'{o}.mp4', x, fps=o))['rate'] for o in (12.5,25,50))
    assert .5<np.log2(same/slow)<1.5 and .5<np.log2(fast/same)<1.5

def test_frame_rate_of_the_file_does_not_matter(model, run, tmp_path):
    "Twice as many frames a second show the same motion"
    x = frames_of(run)
    a = rate_of(model, write_video(tmp_path/'a.mp4', x, fps=25, crf=12))
    b = rate_of(model, write_video(tmp_path/'b.mp4', x.repeat_interleave(2, 1), fps=50, crf=12))
    assert abs(np.log2(a['rate']/b['rate']))<.25

@pytest.mark.parametrize('noise', [0,8])
def test_unsure_of_a_still(model, tmp_path, noise):
    x = torch.randint(0, 200, (3,1,120,160)).expand(-1,100,-1,-1)+torch.randint(-noise, noise+1, (3,100,120,160))
    still = write_video(tmp_path/'still.mp4', x.clip(0, 255).to(torch.uint8))
    assert not rate_of(model, still)['sure'] and not rate_curve(model, still).sure.any()
    test_eq(rate_segments(rate_curve(model, still)).kind.tolist(), ['unsure'])

def test_curve_and_whole_agree_on_one_window(model, run, tmp_path):
    short = write_video(tmp_path/'short.mp4', frames_of(run)[:,:17])
    curve = rate_curve(model, short, every=5.)
    test_eq(len(curve), 1)
    whole = rate_of(model, short, 5.)
    for o in ('rate','low','high'): np.testing.assert_allclose(curve[o][0], whole[o], rtol=1e-12)
    assert (curve.low<=curve.rate).all() and (curve.rate<=curve.high).all()

def test_batches_do_not_matter(model, run):
    from prp_fastai.rate import _evidence
    with VideoReader(run) as v: a = _evidence(model, v, .5, bs=3)[1]
    with VideoReader(run) as v: b = _evidence(model, v, .5, bs=16)[1]
    np.testing.assert_allclose(a, b, atol=1e-4)

def test_rows_keep_order_resume_and_say_why(model, run, tmp_path, monkeypatch):
    (tmp_path/'broken.mp4').write_text('no video')
    short = write_video(tmp_path/'short.mp4', torch.zeros(3,9,32,32, dtype=torch.uint8))
    asked,out = [tmp_path/'broken.mp4', run, short],tmp_path/'out.csv'
    table = rates_of(model, asked)
    test_eq(table.path.tolist(), list(map(str, asked)))
    assert table.reason[0] and table.reason[1]=='' and 'too few' in table.reason[2]
    rates_of(model, asked[:2], out)
    again = rates_of(model, asked, out)
    np.testing.assert_allclose(again.rate.astype(float), table.rate.astype(float))
    test_eq(again.reason.tolist(), table.reason.tolist())
    with pytest.raises(ValueError, match='other settings'): rates_of(model, asked, out, every=1.)

def test_segments_find_what_was_planted(model, tmp_path):
    files = get_video_files(sample_videos())[::6][:6]
    xs = [frames_of(o) for o in files]
    film = torch.cat([xs[0], xs[1], xs[2].repeat_interleave(2, 1), xs[3].repeat_interleave(2, 1), xs[4], xs[5]], 1)
    at = np.cumsum([0]+[o.shape[1]*k for o,k in zip(xs, (1,1,2,2,1,1))])/25
    found = rate_segments(rate_curve(model, write_video(tmp_path/'film.mp4', film)))
    slow = found[found.kind=='slow motion']
    t = np.arange(0, at[-1], .02)
    got = np.any([(t>=o.start) & (t<o.end) for o in slow.itertuples()], 0)
    true = (t>=at[2]) & (t<at[4])
    assert (got & true).sum()/(got | true).sum()>.6

@pytest.mark.parametrize('rates,kinds', [([1]*6,['as filmed']), ([1]*6+[4]*6,['as filmed','fast forward']), ([1]*6+[4]+[1]*6,['as filmed'])])
def test_segments(rates, kinds):
    curve = pd.DataFrame(dict(time=np.arange(len(rates))/2, rate=np.array(rates, float), sure=True))
    test_eq(rate_segments(curve).kind.tolist(), kinds)
    found = rate_segments(curve)
    test_eq(found.windows.sum(), len(rates))
    test_eq(found.end[:-1].tolist(), found.start[1:].tolist())

def test_fit_on_few_videos_and_round_trip(tmp_path):
    files = get_video_files(sample_videos())[::2]
    model = fit_rate_model(load_encoder('sample'), files, draws=12, seed=0)
    again = fit_rate_model(load_encoder('sample'), files, draws=12, seed=0)
    assert torch.equal(model.head.weight, again.head.weight) and .5<=model.temperature<=8
    loaded = load_model(save_model(model, tmp_path/'r.safetensors'))
    test_eq(rate_of(loaded, files[0]), rate_of(model, files[0]))
    with pytest.raises(ValueError, match='learned from'): check_unseen(card_of(loaded), files)
    assert 'bins' not in load_encoder(tmp_path/'r.safetensors').card

def test_fit_refuses(tmp_path):
    with pytest.raises(ValueError, match='lacks clip_len and size'): fit_rate_model(create_encoder('c3d', .05), [])
    with pytest.raises(ValueError, match='none of the videos'): fit_rate_model(load_encoder('sample'), [])
    with pytest.raises(ValueError, match='too few clips'): fit_rate_model(load_encoder('sample'), get_video_files(sample_videos())[:2])

def test_another_fps_reads_at_other_times(run):
    a = fit_rate_model(load_encoder('sample'), get_video_files(sample_videos())[::2], draws=12, fps=24)
    test_eq(card_of(a)['rate_fps'], 24)

def test_prp_rate_from_the_shell(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run.parent, tmp_path/'videos')
    said = fork('prp-rate', 'videos', '--segments')
    assert said.splitlines()[-1]=='written: rates.csv' and 'as filmed' in said
    assert len(pd.read_csv('rates.csv'))==4 and {'path','start','end','kind'}<=set(pd.read_csv('rates_segments.csv'))
    one = pd.read_csv('rates.csv').iloc[0]
    said = fork('prp-rate', one.path, '--out', 'one.csv').splitlines()[0]
    assert re.match(rf'{Path(one.path).name}: (unsure|slow motion|as filmed|fast forward), {one.rate:.2f}x \({one.low:.2f} to {one.high:.2f}\)$', said), said
    Path('no.mp4').write_text('x')
    assert 'no.mp4: Invalid data' in fork('prp-rate', 'no.mp4', '--out', 'no.csv')
    assert 'is no rate model' in fork('prp-rate', 'videos', '--model', 'sample', ok=False)
    said = fork('prp-rate', 'videos', '--model', 'sample', '--fit', str(sample_videos()), '--out', 'own.csv')
    assert 'rate model: own.safetensors' in said and isinstance(load_model('own.safetensors'), RateModel)
