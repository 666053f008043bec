"Items, batches, and what is said when there is nothing to make them of"
import pandas as pd,pytest,torch
from pathlib import Path
from prp_fastai.all import *
from conftest import pattern

small = dict(size=24, bs=4, num_workers=0)

def test_validation_is_the_same_for_any_number_of_workers_and_any_order(video_folder):
    dls = PRPDataLoaders.from_folder(video_folder, **small, valid_pct=.5)
    runs = [list(dls.valid.new(num_workers=n)) for n in (0,1,2)] + [list(PRPDataLoaders.from_folder(video_folder, **small, valid_pct=.5).valid)]
    for run in runs[1:]:
        for a,b in zip(runs[0], run, strict=True):
            for x,y in zip(a, b, strict=True): assert torch.equal(x, y)

def epoch(video_folder, workers, skip=0):
    set_seed(3)
    dl = PRPDataLoaders.from_folder(video_folder, **{**small, 'bs':2, 'num_workers':workers}, flip=.5).train
    dl.first_batch = skip
    return list(dl)

@pytest.mark.parametrize('workers', [0,1,2,3])
def test_training_repeats_for_a_seed_and_any_number_of_workers(video_folder, workers):
    for a,b in zip(epoch(video_folder, 0), epoch(video_folder, workers), strict=True):
        for x,y in zip(a, b, strict=True): assert torch.equal(x, y)

@pytest.mark.parametrize('workers', [0,1,2])
@pytest.mark.parametrize('skip', [1,2,4])
def test_an_epoch_goes_on_after_any_batch(video_folder, workers, skip):
    for a,b in zip(epoch(video_folder, 0)[skip:], epoch(video_folder, workers, skip), strict=True):
        for x,y in zip(a, b, strict=True): assert torch.equal(x, y)

def test_reading_leaves_the_random_numbers_of_others_alone(video_folder):
    dl = PRPDataLoaders.from_folder(video_folder, **small).train
    states = random.getstate(),torch.get_rng_state()
    list(dl)
    assert states[0]==random.getstate() and torch.equal(states[1], torch.get_rng_state())

def test_training_draws_anew(video_folder):
    dls = PRPDataLoaders.from_folder(video_folder, **small)
    assert not all(torch.equal(a[1], b[1]) for a,b in zip(list(dls.train)*4, [*dls.train,*dls.train,*dls.train,*dls.train]))

@pytest.mark.parametrize('r', [1,2,4])
@pytest.mark.parametrize('l', [8,16])
def test_a_batch_is_what_was_promised(video_folder, r, l):
    dls = PRPDataLoaders.from_folder(video_folder, **small, recon_rate=r, clip_len=l)
    for X,rate,G,M in dls.valid:
        assert X.shape[1:]==(3,l,24,24) and G.shape[1:]==(3,r*l,24,24) and M.shape[1:]==(1,r*l,24,24)
        assert torch.equal(X, G[:,:,::r]) and X.dtype==torch.float32 and 0<=X.min() and X.max()<=1
        assert .8-1e-5<=M.min() and M.max()<=2+1e-5 and 0<=rate.min() and rate.max()<4

def test_item_shows_the_frames_of_its_rate(tmp_path):
    "Each frame carries its number in its brightness: the numbers in a clip are `s` apart"
    frames = torch.arange(128).mul(2).to(torch.uint8)[None,:,None,None].expand(3,128,32,44)
    path = write_video(tmp_path/'a.mkv', frames, codec='ffv1', pix_fmt='bgr0')
    rated,cropped,played = PlaybackRate(size=(27,37)),CropVideo(24),PRPBatch()
    for _ in range(20):
        span,k = cropped(rated((path,), split_idx=0), split_idx=0)
        X,*_ = played((span.transpose(0, 1), k[None]))
        steps = (X[0].mean((0,2,3))*255/2).diff()
        assert (steps-rated.rates[k]).abs().max()<.3

def test_too_short_for_a_rate_draws_another(tmp_path):
    path = write_video(tmp_path/'short.mp4', pattern(40))
    rated = PlaybackRate(size=(24,32))
    drawn = [rated((path,), split_idx=0) for _ in range(40)]
    assert {int(k) for _,k in drawn}=={0,1}
    for span,k in drawn:
        assert span.shape[1]==16*rated.rates[k]
        assert (span[:,1:].float()-span[:,:-1].float()).abs().mean((0,2,3)).min()>0, 'a frame was repeated'

def test_too_short_for_all_is_named(tmp_path):
    path = write_video(tmp_path/'tiny.mp4', pattern(10))
    with pytest.raises(VideoError, match='tiny.mp4: 10 frames are too few'): PlaybackRate()((path,), split_idx=0)

def test_crop_is_one_window_for_the_item(video_folder):
    path = get_video_files(video_folder)[0]
    span,k = PlaybackRate(size=(32,44), rates=(1,))((path,), split_idx=1)
    crop = CropVideo(24)
    for _ in range(10):
        cut,_ = crop((span,k), split_idx=0)
        top,left,h,w = crop.at
        assert h==w==24 and torch.equal(cut, span[...,top:top+24,left:left+24])
    with pytest.raises(ValueError, match='does not fit'): CropVideo(100)((span,k), split_idx=0)

def test_windows_of_luma_and_chroma_are_one(video_folder):
    path = get_video_files(video_folder)[0]
    rated = PlaybackRate(size=(33,45), rates=(1,), yuv=True)
    luma,chroma,k = rated((path,), split_idx=1)
    crop = CropVideo(24)
    for split_idx in (0,)*10+(1,):
        y,c,_ = FlipVideo(p=1.)(crop((luma,chroma,k), split_idx=split_idx), split_idx=0)
        top,left = crop.at[:2]
        assert top%2==left%2==0 and y.shape[2:]==(24,24) and c.shape[2:]==(12,12)
        assert torch.equal(y.flip(-1), luma[...,top:top+24,left:left+24]) and torch.equal(c.flip(-1), chroma[...,top//2:top//2+12,left//2:left//2+12])
    with pytest.raises(ValueError, match='a crop of 23 is odd'): CropVideo(23)((luma,chroma,k), split_idx=0)

def test_colours_are_not_made_by_half(video_folder):
    "An item transform that knows only of RGB is told so, and does not spoil the colours"
    class Colored(ItemTransform):
        order = 5
        def encodes(self, o): return TensorVideo(o[0].expand(3, -1, -1, -1)), *o[1:]
    dls = PRPDataLoaders.from_folder(video_folder, **small, yuv=True)
    dls.valid.after_item.add(Colored())
    with pytest.raises(ValueError, match='luma has 3 channels'): dls.valid.one_batch()

@pytest.mark.parametrize('workers', [1,2])
def test_batches_in_yuv(video_folder, workers):
    "The same for any number of workers, and beside those in RGB what coarser colours make of them"
    def epoch(**kwargs):
        set_seed(3)
        return list(PRPDataLoaders.from_folder(video_folder, **{**small, 'size':28, 'crop':'center', **kwargs}).train)
    for a,b,rgb in zip(epoch(yuv=True), epoch(yuv=True, num_workers=workers), epoch(), strict=True):
        for x,y in zip(a, b, strict=True): assert torch.equal(x, y)
        assert torch.equal(a[1], rgb[1]) and (a[2]-rgb[2]).abs().mean()<.02 and (a[3]-rgb[3]).abs().mean()<.05

def test_groups_stay_whole(video_folder):
    dls = PRPDataLoaders.from_folder(video_folder, **small, by_group=True, valid_pct=.3)
    assert not {video_group(o) for o in dls.train_ds.items} & {video_group(o) for o in dls.valid_ds.items}

def test_table_and_folder_agree(video_folder):
    files = get_video_files(video_folder)
    df = pd.DataFrame(dict(fname=[o.name for o in files], held=[i%3==0 for i in range(12)]))
    df.to_csv(video_folder/'labels.csv', index=False)
    for dls in (PRPDataLoaders.from_df(df, path=video_folder, valid_col='held', **small), PRPDataLoaders.from_csv(video_folder, valid_col='held', **small)):
        assert L(dls.valid_ds.items).sorted()==files[::3]
    (video_folder/'labels.csv').unlink()

def test_attention_can_be_off(video_folder): assert (PRPDataLoaders.from_folder(video_folder, **small, attn=None).one_batch()[3]==1).all()

def test_names_with_brackets(tmp_path):
    for i in range(6): write_video(tmp_path/f'a [{i}] ! & ; (x).mp4', pattern(40))
    assert len(PRPDataLoaders.from_folder(tmp_path, **small, rates=(1,2)).one_batch())==4

@pytest.mark.parametrize('kwargs,says', [
    (dict(rates=(1,3)), 'powers of two'), (dict(rates=()), 'powers of two'), (dict(rates=(4,2)), 'ascending'), (dict(rates=(1,32)), '1 to 16'),
    (dict(recon_rate=8), 'recon_rate must be 1, 2 or 4'), (dict(bs=64), 'do not fill a batch of 64'), (dict(yuv=True, backend='torchcodec'), "read by 'pyav'"), (dict(yuv=True, size=25), 'even size, got 25'), (dict(read_size=(240,)), 'read_size is .height, width., got .240,.'), (dict(valid_pct=0.), 'is left for validation')])
def test_settings_that_cannot_work(video_folder, kwargs, says):
    with pytest.raises(ValueError, match=says): PRPDataLoaders.from_folder(video_folder, **{**small, **kwargs})

def test_nothing_to_train_on(tmp_path):
    with pytest.raises(FileNotFoundError, match='no video files under'): PRPDataLoaders.from_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match='is not a folder'): PRPDataLoaders.from_folder(tmp_path/'none')
    with pytest.raises(ValueError, match='0 training videos'): PRPDataLoaders.from_df(pd.DataFrame(dict(fname=[])))

def test_one_rate_leaves_nothing_to_tell(video_folder):
    dls = PRPDataLoaders.from_folder(video_folder, **small, rates=(2,))
    with pytest.raises(ValueError, match='nothing to tell apart'): prp_learner(dls, 'c3d', width=.05)
    assert prp_learner(dls, 'c3d', heads=('recon',), width=.05).validate()

def test_lists(tmp_path):
    (tmp_path/'video').mkdir(); (tmp_path/'split').mkdir()
    for o in ('a b.mp4','c.mp4'): (tmp_path/'video'/o).touch()
    lst = tmp_path/'split/trainlist01.txt'
    lst.write_text('a b.mp4 1\n\nc.mp4 12\n')
    assert read_list(lst)==[tmp_path/'video'/'a b.mp4', tmp_path/'video'/'c.mp4']
    lst.write_text('c.mp4\ngone.mp4 3\n')
    with pytest.raises(FileNotFoundError, match='1 of 2 videos are missing, the first is .*gone.mp4'): read_list(lst)
    lst.write_text('\n')
    with pytest.raises(ValueError, match='names no videos'): read_list(lst)

def test_paths_relative_to_where_one_stands(video_folder, monkeypatch):
    (video_folder/'below').mkdir(exist_ok=True)
    monkeypatch.chdir(video_folder/'below')
    dls = PRPDataLoaders.from_folder('..', **small)
    assert len(dls.train_ds)+len(dls.valid_ds)==12 and len(dls.one_batch())==4

@pytest.mark.parametrize('yuv', [False,True])
def test_frames_scaled_on_the_device(video_folder, yuv):
    "Clip, target and attention are nearly those of frames scaled by the reader, and the same for any number of workers"
    kw = {**small, 'size':24, 'crop':'center', 'yuv':yuv, 'valid_pct':.5}
    def batches(**kwargs): return list(PRPDataLoaders.from_folder(video_folder, **{**kw, **kwargs}).valid)
    for a,b,c in zip(batches(), batches(read_size=(32,44)), batches(read_size=(32,44), num_workers=2), strict=True):
        assert all(map(torch.equal, b, c)) and [o.shape for o in a]==[o.shape for o in b]
        assert torch.equal(a[1], b[1]) and (a[2]-b[2]).abs().mean()<.02 and (a[3]-b[3]).abs().mean()<.06

def test_the_window_of_frames_that_are_not_scaled_yet():
    crop = CropVideo(112)
    for sides,cut in (((128,171),(112,112)), ((240,320),(210,210)), ((480,848),(420,556))):
        drawn = [crop.window(sides, split_idx, 2, (128,171)) for split_idx in (*[0]*50,1)]
        assert {o[2:] for o in drawn}=={cut} and all(0<=at<=side-n and at%2==0 for o in drawn for at,side,n in zip(o, sides, cut))
        assert len(set(drawn))>20 and all(abs(2*at+n-side)<=4 for at,side,n in zip(drawn[-1], sides, cut))

@pytest.mark.parametrize('yuv', [False,True])
def test_a_crop_in_the_reading_is_a_crop_after_it(video_folder, tmp_path, yuv):
    "From the file and from the cache, in training with the same random numbers"
    path = get_video_files(video_folder)[0]
    cache_video(path, tmp_path, (33,45), yuv=yuv)
    for reader,split_idx in itertools.product((VideoReader, OpenVideo(cache=tmp_path, size=(33,45), yuv=yuv)), (0,0,0,1)):
        def rated(crop=None): return set_seed(split_idx) or PlaybackRate(size=(33,45), rates=(1,2), reader=reader, yuv=yuv, crop=crop)((path,), split_idx=split_idx)
        for a,b in zip(rated(CropVideo(24)), CropVideo(24)(rated(), split_idx=split_idx), strict=True): assert torch.equal(a, b)
