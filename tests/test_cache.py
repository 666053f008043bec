"What a cache keeps, and that nobody can tell it from the files"
import os,random,shutil
import numpy as np,pytest,torch
from pathlib import Path
from prp_fastai.all import *
from conftest import killed,pattern

size = (27,37)

@pytest.fixture
def videos(tmp_path):
    path = tmp_path/'videos'; path.mkdir()
    for i in range(8): write_video(path/f'{i}.mp4', pattern(140, seed=i), threads=1)
    return get_video_files(path)

def test_cached_batches_are_the_uncached_ones(videos, tmp_path, capsys):
    cache_videos(videos[:6], tmp_path/'cache', size)
    def batches(**kwargs):
        set_seed(5)
        dls = PRPDataLoaders.from_files(videos, size=24, bs=2, num_workers=0, valid_pct=.25, **kwargs)
        return [o for dl in (dls.train,dls.valid) for b in dl for o in b]
    plain = batches()
    assert all(map(torch.equal, plain, batches(cache=tmp_path/'cache')))
    assert '6 of 8 videos are read from the cache' in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match=r'none of these 8 videos at \(37, 49\)'): PRPDataLoaders.from_files(videos, size=32, cache=tmp_path/'cache')

def test_a_changed_video_is_cached_anew_and_its_old_frames_go(videos, tmp_path):
    cache = tmp_path/'cache'
    before = cache_videos(videos, cache, size)
    write_video(videos[3], pattern(40, seed=77), threads=1)
    assert isinstance(OpenVideo(cache=cache, size=size)(videos[3]), VideoReader)
    after = cache_videos(videos, cache, size)
    assert before.cached[3]!=after.cached[3] and not Path(before.cached[3]).exists()
    assert before.cached.drop(3).equals(after.cached.drop(3)) and len(list(cache.rglob('*.npy')))==8
    with OpenVideo(cache=cache, size=size)(videos[3]) as v: assert len(v)==40

def test_reads_like_a_reader(videos, tmp_path):
    with CachedVideo(videos[0], cache_video(videos[0], tmp_path, size)) as v, VideoReader(videos[0]) as plain:
        for idxs in (range(3, 19), [5,2,2,139], [7]): assert torch.equal(v.frames(idxs, size), plain.frames(idxs, size))
        for idxs in ([140], [-1], []):
            with pytest.raises(IndexError): v.frames(idxs)
        with pytest.raises(ValueError, match='is cached at'): v.frames([0], (54,74))

def test_yuv_reads_like_a_reader(videos, tmp_path):
    with CachedVideo(videos[0], cache_video(videos[0], tmp_path, size, yuv=True)) as v, VideoReader(videos[0]) as plain:
        for idxs in (range(3, 19), [5,2,2,139], [7]):
            assert all(map(torch.equal, v.planes(idxs, size), plain.planes(idxs, size)))
        for idxs in ([140], [-1], []):
            with pytest.raises(IndexError): v.planes(idxs, size)
        with pytest.raises(ValueError, match='is cached at'): v.planes([0], (54,74))

def test_one_cache_holds_both_kinds(videos, tmp_path):
    "Neither is taken for the other, nor made of it"
    def kinds(): return [[isinstance(o, CachedVideo) and o.yuv==yuv for o in map(OpenVideo(cache=tmp_path, size=size, yuv=yuv), videos[:3])] for yuv in (False,True)]
    cache_videos(videos[:1], tmp_path, size)
    assert kinds()==[[True,False,False], [False,False,False]]
    cache_videos(videos[:2], tmp_path, size, yuv=True)
    assert kinds()==[[True,False,False], [True,True,False]]
    for yuv,name in ((False,'planes'),(True,'frames')):
        with pytest.raises(ValueError, match=f'cached in {"YUV" if yuv else "RGB"}: open it with OpenVideo'): getattr(OpenVideo(cache=tmp_path, size=size, yuv=yuv)(videos[0]), name)([0], size)
    assert [np.load(cache_file(videos[0], tmp_path, size, o)).nbytes for o in (False,True)]==[140*3*27*37, 140*(27*37+2*14*19)]

def test_cached_batches_in_yuv_are_the_uncached_ones(videos, tmp_path):
    def batches(**kwargs):
        set_seed(5)
        dls = PRPDataLoaders.from_files(videos, size=24, bs=2, num_workers=0, valid_pct=.25, yuv=True, **kwargs)
        return [o for dl in (dls.train,dls.valid) for b in dl for o in b]
    plain = batches()
    with pytest.raises(FileNotFoundError, match='in YUV: fill it with prp-cache --yuv'): batches(cache=tmp_path)
    cache_videos(videos[:6], tmp_path, size, yuv=True)
    assert all(map(torch.equal, plain, batches(cache=tmp_path)))

def test_changing_a_clip_leaves_the_cache_alone(videos, tmp_path):
    fname = cache_video(videos[0], tmp_path, size)
    before = fname.read_bytes()
    CachedVideo(videos[0], fname).frames(range(16)).zero_()
    assert fname.read_bytes()==before

def test_frames_that_were_not_kept_as_read_are_noticed(videos, tmp_path, monkeypatch):
    frames = VideoReader.frames
    def spoilt(self, idxs, size=None, out=None):
        res = frames(self, idxs, size, out)
        if out is not None: out[:,-1] ^= 1
        return res
    monkeypatch.setattr(VideoReader, 'frames', spoilt)
    with pytest.raises(VideoError, match='frame 139 differs'): cache_video(videos[0], tmp_path, size)
    assert not list(tmp_path.rglob('*.npy'))

def test_what_cannot_be_kept_is_said(videos, tmp_path, monkeypatch):
    whole = manifest_of(videos, tmp_path/'m.csv')
    videos[1].write_bytes(videos[1].read_bytes()[:2000])
    with pytest.warns(UserWarning, match='1.mp4 is not cached'): df = cache_videos(videos, tmp_path/'cache', size, manifest=whole)
    assert df.cached.eq('').sum()==1

def test_cache_that_is_killed_goes_on(videos, tmp_path):
    "Twenty times, at any moment; then all files are those of an undisturbed run, byte for byte"
    df = scan_videos(videos)
    undisturbed,cache = tmp_path/'undisturbed',tmp_path/'killed'
    took = killed(lambda: cache_videos(videos, undisturbed, size, df), after=60)
    rng = random.Random(0)
    for i in range(20):
        if i%4==0: shutil.rmtree(cache, ignore_errors=True)
        killed(lambda: cache_videos(videos, cache, size, df), after=rng.random()*took)
    cache_videos(videos, cache, size, df)
    def contents(o): return {f.name: f.read_bytes() for f in o.rglob('*') if f.is_file()}
    assert contents(cache)==contents(undisturbed)
