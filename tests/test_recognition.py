"Ten clips of each video, and what is made of them"
import numpy as np,pytest,torch
from prp_fastai.all import *
from conftest import pattern

def plain_clips(path, n_clips=10, l=16, size=24):
    "fidelity of the ten-clip protocol, word for word: frames one by one, scaled, centre-cropped, RGB/255"
    n = probe(path).n_frames
    H,W = round(size*128/112),round(size*171/112)
    clips = []
    for i in np.linspace(l/2, n-l/2, n_clips):
        start = int(i-l/2)
        frames = [read_frames(path, [f], size=(H,W))[:,0] for f in range(start, start+l)]
        top,left = (H-size)//2,(W-size)//2
        clips.append(torch.stack([o.as_subclass(Tensor)[:,top:top+size,left:left+size].float()/255 for o in frames], 1))
    return torch.stack(clips)

@pytest.mark.parametrize('workers', [0,2])
def test_ten_clips_are_those_of_the_protocol(video_folder, tmp_path, workers):
    short = write_video(tmp_path/'short [1].mp4', pattern(21, 32, 44))
    files = get_video_files(video_folder)[:2] + [short]
    got = list(clips_loader(files, size=24, bs=2, num_workers=workers))
    assert [len(o) for o,_ in got]==[2,1], 'the last batch is kept'
    assert torch.cat([i for _,i in got]).tolist()==[0,1,2]
    for a,b in zip(torch.cat([o for o,_ in got]), files, strict=True): assert torch.equal(a, plain_clips(b))

def test_one_clip_is_the_first(video_folder):
    path = get_video_files(video_folder)[0]
    clips,_ = clips_loader([path], n_clips=1, size=24, num_workers=0).one_batch()
    assert torch.equal(clips[0], plain_clips(path, n_clips=1)) and linspace_starts(150, 1)==[0]

@pytest.mark.parametrize('workers', [0,2])
def test_a_video_without_clips_is_named(video_folder, tmp_path, workers):
    good,short,broken = get_video_files(video_folder)[0],write_video(tmp_path/'short.mp4', pattern(15)),tmp_path/'broken.mp4'
    broken.write_bytes(b'not a video')
    with pytest.raises(VideoError, match='short.mp4: 15 frames are too few'): list(clips_loader([good,short], size=24, num_workers=workers))
    with pytest.raises(VideoError, match='broken.mp4'): list(clips_loader([good,broken], size=24, num_workers=workers))
    with pytest.raises(FileNotFoundError, match='1 of 2 videos are missing, the first is .*gone.mp4'): clips_loader([good, tmp_path/'gone.mp4'])

def test_other_starts(video_folder):
    "Windows side by side, as another protocol takes them"
    path = get_video_files(video_folder)[0]
    clips,_ = clips_loader([path], size=24, starts=lambda n: range(0, n-31, 32), clip_len=32, num_workers=0).one_batch()
    assert clips.shape==(1,4,3,32,24,24)
