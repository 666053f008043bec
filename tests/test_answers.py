"Outside training an answer is that of the video that was asked for, or there is none; and what is asked comes as people write it"
import pandas as pd,pytest,torch
from prp_fastai.all import *
import copy,pickle
from conftest import pattern

small = dict(size=24, bs=3, num_workers=0)

@pytest.fixture
def labelled(tmp_path):
    "Two classes of six videos"
    for i in range(12):
        (tmp_path/'ab'[i%2]).mkdir(exist_ok=True)
        write_video(tmp_path/'ab'[i%2]/f'{i:02}.mp4', pattern(40, 32, 44, seed=i), threads=1)
    return tmp_path

def is_nan(o): return o.flatten(1).isnan().all(1).tolist()

@pytest.fixture
def asked(labelled):
    "Three good videos, with one that is broken and one too short between them"
    broken,short = labelled/'broken.mp4',write_video(labelled/'short.mp4', pattern(9, 32, 44), threads=1)
    broken.write_bytes(b'no video')
    good = get_video_files(labelled/'a')[:3]
    return [good[0], broken, good[1], short, good[2]]

@pytest.mark.parametrize('workers', [0,2])
def test_each_prediction_is_that_of_its_video(labelled, asked, capsys, workers):
    files = [o for c in 'ab' for o in get_video_files(labelled/c)]
    dls = VideoDataLoaders.from_df(pd.DataFrame(dict(path=files, label=['a']*6+['b']*6)), **small)
    learn = video_learner(dls, 'c3d', width=.05)
    alone = torch.cat([learn.get_preds(dl=dls.test_dl([o]))[0] for o in asked[::2]])
    dl = dls.test_dl(asked, bs=2, num_workers=workers)
    with learn.no_bar(): preds = learn.get_preds(dl=dl)[0]
    assert is_nan(preds)==[False,True,False,True,False] and torch.allclose(preds[::2], alone, atol=1e-6)
    assert dl.bad_items==[asked[1],asked[3]]
    said = capsys.readouterr().out
    assert '2 of 5 videos could not be read and have no answer' in said and 'broken.mp4' in said and 'short.mp4' in said
    with pytest.raises(VideoError, match='broken.mp4'), learn.no_bar(): learn.get_preds(dl=dls.test_dl(asked, unread='raise', num_workers=workers))
    with pytest.raises(VideoError, match='broken.mp4'): list(dls.test_dl(asked[1::2], num_workers=workers))
    with pytest.raises(VideoError, match='short.mp4: 9 frames'), learn.no_bar(): learn.predict(asked[3])
    with pytest.raises(ValueError, match="unread must be 'nan' or 'raise'"): dls.test_dl(asked, unread='skip')

def frame_dls(labelled): return VideoDataLoaders.from_folder(labelled, **small, valid_pct=.5)

@pytest.mark.parametrize('workers', [0,2])
def test_validation_goes_without_what_it_cannot_read(labelled, capsys, workers):
    dls = VideoDataLoaders.from_folder(labelled, **{**small, 'num_workers':workers}, valid_pct=.5)
    learn = video_learner(dls, 'c3d', width=.05)
    items = L(dls.valid_ds.items)
    rest = dls.test_dl(items[:1]+items[2:], with_labels=True)
    expected = learn.validate(dl=rest)
    items[1].write_bytes(b'')
    assert torch.allclose(tensor(learn.validate()), tensor(expected)) and items[1].name in capsys.readouterr().out
    preds,targs = learn.get_preds()
    assert is_nan(preds)==[i==1 for i in range(len(items))] and targs.tolist()==[dls.vocab.o2i[o.parent.name] for o in items]
    losses = learn.get_preds(with_loss=True)[2]
    assert losses.isnan().tolist()==[i==1 for i in range(len(items))]
    learn.fit(1)
    assert all(np.isfinite(learn.recorder.values[-1]))

def test_a_loss_that_is_not_finite_is_of_the_video_it_is_of(labelled):
    "Also beside a video that cannot be read, which has no loss"
    class Poisoned(CrossEntropyLossFlat):
        def __call__(self, inp, targ, **kwargs): return super().__call__(inp.clone().index_fill_(0, torch.tensor([1]), torch.nan), targ, **kwargs)
    dls = frame_dls(labelled)
    learn = video_learner(dls, 'c3d', width=.05)
    learn.loss_func = Poisoned()
    items = dls.valid_ds.items
    items[0].write_bytes(b'')
    with pytest.raises(NonFiniteLoss, match=f'videos: {items[2]}'): learn.validate()

def test_whatever_is_not_a_pass_of_training_replaces_nothing(labelled, capsys):
    dls = frame_dls(labelled)
    learn = video_learner(dls, 'c3d', width=.05)
    dls.train_ds.items[2].write_bytes(b'')
    assert is_nan(learn.get_preds(ds_idx=0)[0])==[i==2 for i in range(6)]
    assert is_nan(learn.get_preds(dl=dls.train)[0])==[i==2 for i in range(6)]
    capsys.readouterr()
    learn.validate(ds_idx=0)
    assert 'have no answer' in capsys.readouterr().out
    learn.fit(1)
    assert '1 of 6 videos could not be read and were replaced' in capsys.readouterr().out
    assert not torch.cat([b[0] for b in dls.train]).isnan().any()

def test_pretraining_answers_for_the_video_too(labelled):
    files = get_video_files(labelled)
    dls = PRPDataLoaders.from_files(files, rates=(1,2), **small, valid_pct=.5)
    learn = prp_learner(dls, 'c3d', width=.05)
    dls.valid_ds.items[1].write_bytes(b'')
    (rates,recon),_ = learn.get_preds()
    assert is_nan(rates)==is_nan(recon)==[i==1 for i in range(6)]
    with pytest.raises(VideoError, match='the file is empty'): PRPInterpretation.from_learner(learn)
    assert np.isfinite(learn.validate()).all()

def test_a_short_video_is_resampled_in_training_alone(labelled):
    short = write_video(labelled/'short.mp4', pattern(20, 32, 44), threads=1)
    rated = PlaybackRate(rates=(1,2), size=(27,37), short='resample')
    rated.pool = [*get_video_files(labelled/'a')]
    for split_idx,seeds in ((1,range(20)), (0,range(20))):
        names = set()
        for rated.seed in seeds: names.add(Path(rated((short,), split_idx=split_idx)[0].fn).name)
        assert (names=={'short.mp4'})==bool(split_idx)

def test_videos_to_validate_on_that_are_left_out_are_named(labelled, asked, capsys):
    PRPDataLoaders.from_files(get_video_files(labelled/'b'), valid=asked, rates=(1,2), **small)
    assert '2 validation videos cannot be used: ' + f'{asked[1]}, {asked[3]}' in capsys.readouterr().out

def test_text_is_a_path(labelled):
    dls = frame_dls(labelled)
    learn = video_learner(dls, 'c3d', width=.05)
    path = dls.valid_ds.items[0]
    with learn.no_bar(): assert learn.predict(str(path))[2].equal(learn.predict(path)[2])
    for with_labels in (False,True):
        for a,b in zip(dls.test_dl([str(path)], with_labels=with_labels).one_batch(), dls.test_dl([path], with_labels=with_labels).one_batch()): assert torch.equal(a, b)
    plain = video_dblock(size=24, get_items=get_video_files).dataloaders(labelled, bs=2, num_workers=0)
    assert torch.equal(plain.test_dl([str(path)]).one_batch()[0], plain.test_dl([path]).one_batch()[0])

@pytest.mark.parametrize('make', [lambda o: video_learner(frame_dls(o), 'c3d', width=.05),
                                  lambda o: prp_learner(PRPDataLoaders.from_folder(o, rates=(1,2), **small), 'c3d', width=.05)], ids=['video','prp'])
def test_learners_and_data_are_copied(labelled, make):
    learn = make(labelled)
    with learn.no_bar(): learn.fit(1)
    again,data = copy.deepcopy(learn),pickle.loads(pickle.dumps(learn.dls))
    for dls in (again.dls,data):
        for a,b in zip(learn.dls.valid, dls.valid, strict=True): assert all(map(torch.equal, a, b))
    with again.no_bar(): assert again.validate()==learn.validate()

@pytest.mark.parametrize('umask,mode', [(0o022,0o644), (0o027,0o640), (0o077,0o600)])
def test_an_encoder_may_be_read_by_whom_the_umask_lets(labelled, umask, mode):
    learn,before = prp_learner(PRPDataLoaders.from_folder(labelled, rates=(1,2), **small), 'c3d', width=.05),os.umask(umask)
    try:
        for _ in range(2): assert learn.save_encoder(labelled/'e.safetensors').stat().st_mode&0o777==mode
    finally: os.umask(before)

spawned = """
import sys,torch
torch.multiprocessing.set_start_method('spawn', force=True)
from prp_fastai.all import *
def epoch(workers):
    set_seed(0)
    return list(PRPDataLoaders.from_files(files, rates=(1,2), size=24, bs=3, num_workers=workers).train)
if __name__=='__main__':
    files = [o for c in 'ab' for o in get_video_files(Path(sys.argv[1])/c)]
    for a,b in zip(epoch(0), epoch(1), strict=True): assert all(map(torch.equal, a, b))
    a,b = (torch.cat([x for x,_ in clips_loader(files, 2, size=24, num_workers=n)]) for n in (0,1))
    assert torch.equal(a, b) and (cache_videos(files, Path(sys.argv[1])/'cache', (27,37), n_workers=1).cached!='').all()
    df = pd.DataFrame(dict(path=files, label=[o.parent.name for o in files]))
    dls = VideoDataLoaders.from_df(df, size=24, bs=3, num_workers=1)
    files[0].write_bytes(b'')
    assert torch.cat([o[0] for o in dls.test_dl(files[:4])]).flatten(1).isnan().all(1).tolist()==[True,False,False,False]
    print('all is the same')
"""

def test_processes_that_are_spawned(labelled, tmp_path):
    "As on macOS and Windows: batches, clips, a scan and a cache"
    import subprocess,sys
    (tmp_path/'job.py').write_text(spawned)
    env = {**os.environ, 'PYTHONPATH':str(Path(__file__).resolve().parent.parent), 'OMP_NUM_THREADS':'1'}
    res = subprocess.run([sys.executable, str(tmp_path/'job.py'), str(labelled)], capture_output=True, text=True, env=env, timeout=900)
    assert 'all is the same' in res.stdout, res.stderr[-3000:]
