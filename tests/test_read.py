"The frames asked for, from whatever file"
import itertools,random,shutil,sys,av,numpy as np,pytest,torch
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from hypothesis import given,settings,strategies as st
from prp_fastai.read import *
from prp_fastai.external import get_video_files
from conftest import pattern

n = 70
kinds = {'long-gop.mp4': dict(g=250, bf=3), 'short-gop.mkv': dict(g=12, bf=2), 'intra.mp4': dict(g=1), 'odd.mkv': dict(pix_fmt='yuv444p', h=37, w=51),
         'b-frames.avi': dict(codec='mpeg4', bf=2, g=12), 'xvid.avi': dict(codec='mpeg4', g=12), 'mjpeg.avi': dict(codec='mjpeg', pix_fmt='yuvj420p'),
         'vp9.webm': dict(codec='libvpx-vp9', deadline='realtime'), 'hevc.mp4': dict(codec='libx265', **{'x265-params': 'log-level=none:bframes=3'}), 'broadcast.ts': dict(g=12, bf=2),
         'mpeg2.mpg': dict(codec='mpeg2video', g=12, bf=2), 'wmv.wmv': dict(codec='wmv2', g=30), 'one-fps.mp4': dict(fps=1, g=12, bf=2), 'fast.mov': dict(fps=240, g=12, bf=2)}

@pytest.fixture(scope='module')
def files(tmp_path_factory):
    "Each kind, with all of its frames as a sequential decode gives them"
    tmp,res = tmp_path_factory.mktemp('kinds'),{}
    for name,options in kinds.items():
        options = dict(options)
        h,w = options.pop('h', 48),options.pop('w', 64)
        path = write_video(tmp/name, pattern(n, h, w), **options)
        with av.open(str(path)) as c: res[name] = path,np.stack([f.to_ndarray(format='rgb24') for f in c.decode(video=0)]).transpose(3,0,1,2)
    return res

@pytest.mark.parametrize('kind', kinds)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_exactly_these_frames(files, kind, data):
    path,full = files[kind]
    idxs = data.draw(st.lists(st.integers(0, full.shape[1]-1), min_size=1, max_size=9))
    assert np.array_equal(read_frames(path, idxs).numpy(), full[:,idxs])

@pytest.mark.parametrize('kind', kinds)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_exactly_these_frames_in_yuv(files, kind, data):
    "Planes of frames asked for at random are those of a run through the file, and their colours are those of the frames"
    path,full = files[kind]
    idxs,size = data.draw(st.lists(st.integers(0, full.shape[1]-1), min_size=1, max_size=9)),(25,34)
    with VideoReader(path) as v: every,some,rgb = v.planes(range(len(v)), size),v.planes(idxs, size),v.frames(idxs, (26,34))[:,:,:25]
    assert some[0].shape==(1,len(idxs),25,34) and some[1].shape==(2,len(idxs),13,17)
    assert all(torch.equal(a[:,idxs], b) for a,b in zip(every, some))
    luma = torch.einsum('c,cthw->thw', torch.tensor([.299,.587,.114])*219/255, rgb.float().as_subclass(torch.Tensor))+16
    assert (some[0][0].float()-luma).abs().mean()<1.5 and (yuv_to_rgb(*some).float()-rgb.float()).abs().mean()<8

@pytest.mark.parametrize('kind', kinds)
def test_count(files, kind): assert probe(files[kind][0]).n_frames==files[kind][1].shape[1]

def test_colours_are_told_as_the_file_says(tmp_path):
    "Pure colours, which the matrix and the range of the file turn into other numbers, come back"
    colors = np.array([(255,0,0),(0,255,0),(0,0,255),(255,255,255),(64,64,64),(200,90,60)], np.uint8)
    frames = np.broadcast_to(colors.T[:,:,None,None], (3,6,32,32))
    for name,space,fmt,kind in (('sd.mkv',5,'yuv420p','MPEG'), ('hd.mkv',1,'yuv420p','MPEG'), ('full.mkv',5,'yuv420p','JPEG'), ('plain.mkv',None,'bgr0',None)):
        with av.open(str(tmp_path/name), 'w') as c:
            s = c.add_stream('ffv1', rate=25); s.height,s.width,s.pix_fmt = 32,32,fmt
            if space: s.codec_context.colorspace,s.codec_context.color_range = space,dict(MPEG=1, JPEG=2)[kind]
            for f in frames.transpose(1,2,3,0):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(f), format='rgb24')
                c.mux(s.encode(frame.reformat(format=fmt, dst_colorspace=space, dst_color_range=kind) if space else frame))
            c.mux(s.encode(None))
        with VideoReader(tmp_path/name) as v:
            for size in ((32,32), (17,23)):
                off = yuv_to_rgb(*v.planes(range(6), size)).float().mean((2,3)).T - torch.from_numpy(colors).float()
                assert off.abs().max()<5, (name, size, off)

@pytest.mark.parametrize('size', [(48,64), (96,128), (95,127), (71,93)])
def test_colours_sit_where_the_brightness_is(tmp_path, size):
    "Moved by a pixel to any side, they fit worse, at either end of the picture"
    path = write_video(tmp_path/'a.mkv', pattern(3, 96, 128), codec='ffv1', pix_fmt='bgr0')
    h,w = size
    with VideoReader(path) as v: made,want = yuv_to_rgb(*v.planes([0,2], size)).float(),v.frames([0,2], (h+h%2, w+w%2))[:,:,:h,:w].float().as_subclass(torch.Tensor)
    def bright(x): return x.mean(0, keepdim=True)
    def color(x): return x-bright(x)
    for of,part in itertools.product((bright,color), (slice(1, 17), slice(w-17, w-1))):
        off = {(i,j): (of(made).roll((i,j), (2,3))-of(want))[:,:,1:-1,part].abs().mean() for i in (-1,0,1) for j in (-1,0,1)}
        assert min(off, key=off.get)==(0,0) and (of is color or off[0,0]<3), off

def test_scaled_frames_are_those_frames(files):
    path,full = files['long-gop.mp4']
    small = read_frames(path, [5,40], size=(24,32)).float()
    want = full[:,[5,40]].reshape(3,2,24,2,32,2).mean((3,5))
    assert (small-want).abs().mean()<4

def test_any_size_scales_alike(files):
    "Odd and even widths, and widths of no multiple of 16, agree with torch's own scaling"
    import torch.nn.functional as F,torch
    path,full = files['short-gop.mkv']
    for size in ((30,41), (33,52), (48,57)):
        want = F.interpolate(torch.from_numpy(full[:,:1].transpose(1,0,2,3).copy()).float(), size=size, mode='bilinear', antialias=True)
        assert (read_frames(path, [0], size=size)[:,0].float()-want[0]).abs().mean()<3, size

def test_unscaled_widths_are_complete(tmp_path):
    "FFmpeg's own conversion to planar RGB leaves columns of some widths unwritten; ours may not"
    for w in (50, 424):
        white = np.full((3,2,32,w), 200, np.uint8)
        assert read_frames(write_video(tmp_path/f'{w}.mp4', white), [0,1]).min()>150

def test_rotated(tmp_path, files):
    plain = pattern(20)
    with av.open(str(tmp_path/'turned.mp4'), 'w') as c:
        s = c.add_stream('libx264', rate=25); s.height,s.width,s.pix_fmt = 48,64,'yuv420p'
        s.set_display_rotation(90)
        for f in plain.permute(1,2,3,0).numpy(): c.mux(s.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(f), format='rgb24')))
        c.mux(s.encode(None))
    flat = read_frames(write_video(tmp_path/'flat.mp4', plain), [3])
    turned = read_frames(tmp_path/'turned.mp4', [3])
    info = probe(tmp_path/'turned.mp4')
    assert (info.height,info.width)==(64,48)
    assert min((turned.float()-flat.rot90(k, (2,3)).float()).abs().mean() for k in (1,3))<1
    assert read_frames(tmp_path/'turned.mp4', [3], size=(32,24)).shape==(3,1,32,24)
    with VideoReader(tmp_path/'turned.mp4') as v: planes = v.planes([3], (64,48))
    assert (yuv_to_rgb(*planes).float()-turned.float()).abs().mean()<8

def test_variable_frame_rate(tmp_path):
    gaps = np.cumsum([0]+[1+i%5 for i in range(39)])
    with av.open(str(tmp_path/'vfr.mp4'), 'w') as c:
        s = c.add_stream('libx264', rate=25, options=dict(g='10', bf='2')); s.height,s.width,s.pix_fmt = 48,64,'yuv420p'
        for t,f in zip(gaps, pattern(40).permute(1,2,3,0).numpy()):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(f), format='rgb24'); frame.pts = int(t)
            c.mux(s.encode(frame))
        c.mux(s.encode(None))
    with av.open(str(tmp_path/'vfr.mp4')) as c: full = [f.to_ndarray(format='rgb24') for f in c.decode(video=0)]
    assert len(full)==probe(tmp_path/'vfr.mp4').n_frames
    got = read_frames(tmp_path/'vfr.mp4', [39,0,17,18]).permute(1,2,3,0).numpy()
    assert all(np.array_equal(g, full[i]) for g,i in zip(got, [39,0,17,18]))

@pytest.mark.parametrize('name', ['grey.mkv','alpha.mkv','ten-bit.mkv'])
def test_pixel_formats(tmp_path, name):
    fmt = dict(zip(['grey.mkv','alpha.mkv','ten-bit.mkv'], ['gray','bgra','yuv420p10le']))[name]
    path = write_video(tmp_path/name, pattern(8), codec='ffv1', pix_fmt=fmt)
    got = read_frames(path, [2,7]).float()
    want = pattern(8)[:,[2,7]].float()
    if fmt=='gray': want = (want*got.new_tensor([.299,.587,.114])[:,None,None,None]).sum(0, keepdim=True).expand_as(got)
    assert (got-want).abs().mean()<(20 if fmt=='yuv420p10le' else 6)

@pytest.mark.parametrize('name', ['sp ace.mp4', 'br[1]ack;et&.mp4', 'na!me(2).mp4'])
def test_names_are_data(files, tmp_path, name):
    shutil.copy(files['intra.mp4'][0], tmp_path/name)
    assert probe(tmp_path/name).n_frames==n

def audio_only(path):
    with av.open(str(path), 'w') as c:
        s = c.add_stream('aac', rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1,16000), np.float32), format='fltp', layout='mono')
        frame.sample_rate = 16000
        c.mux(s.encode(frame)); c.mux(s.encode(None))

def no_frames(path):
    with av.open(str(path), 'w') as c:
        s = c.add_stream('libx264', rate=25); s.height,s.width,s.pix_fmt = 48,64,'yuv420p'
        c.mux(s.encode(None))

bad = {'empty.mp4': lambda p: p.touch(), 'text.avi': lambda p: p.write_text('not a video '*50), 'noise.mp4': lambda p: p.write_bytes(np.random.default_rng(0).bytes(5000)),
       'picture-name.mp4': lambda p: p.write_bytes(b'\x89PNG\r\n\x1a\n'+b'\0'*100), 'audio.mp4': audio_only, 'no-frames.mkv': no_frames, 'folder.mp4': lambda p: p.mkdir()}

@pytest.mark.parametrize('name', bad)
def test_no_video_is_named_with_a_reason(tmp_path, name):
    bad[name](tmp_path/name)
    for call in (lambda: probe(tmp_path/name), lambda: read_frames(tmp_path/name, [0])):
        with pytest.raises(VideoError) as e: call()
        assert e.value.path==tmp_path/name and len(e.value.reason)>5

@pytest.mark.parametrize('part', [.02, .3, .7, .95])
@pytest.mark.parametrize('kind', ['long-gop.mp4','xvid.avi','short-gop.mkv'])
def test_truncated(files, tmp_path, kind, part):
    "What is left of a truncated file is either read exactly, or refused by name"
    path,full = files[kind]
    cut = tmp_path/kind
    cut.write_bytes(path.read_bytes()[:int(part*path.stat().st_size)])
    try: left = probe(cut).n_frames
    except VideoError as e: assert e.path==cut; return
    for i in {0, left//2}:
        try: frame = read_frames(cut, [i])[:,0].numpy()
        except VideoError as e: assert e.path==cut
        else: assert np.abs(frame.astype(int)-full[:,i]).mean()<40

def test_beyond_the_end(files):
    path,_ = files['xvid.avi']
    for idxs in ([n], [-1], [0,n+5], []):
        with pytest.raises(IndexError): read_frames(path, idxs)

@pytest.mark.parametrize('kind', kinds)
def test_what_a_manifest_knows_is_enough(files, kind):
    "With the index as text, or the number of frames, a reader gives the same frames, and goes through no file twice"
    path,full = files[kind]
    with VideoReader(path) as v: known = v.index.to_text() if v.index else len(v)
    with VideoReader(path, known) as v:
        assert len(v)==full.shape[1] and np.array_equal(v.frames([n//2, 3]).numpy(), full[:,[n//2, 3]])

def test_known_index_is_not_sought_again(files, monkeypatch):
    path,full = files['long-gop.mp4']
    with VideoReader(path) as v: known = v.index.to_text()
    monkeypatch.setattr(VideoReader, '_learn', None)
    with VideoReader(path, known) as v: assert np.array_equal(v.frames([40]).numpy(), full[:,[40]])

def test_writes_into_an_array_it_is_given(files):
    path,full = files['short-gop.mkv']
    out = np.zeros((3,2,48,64), np.uint8)
    with VideoReader(path) as v: v.frames([9,9], out=out)
    assert np.array_equal(out, full[:,[9,9]])

def test_backends_by_name(monkeypatch):
    assert get_reader() is VideoReader
    with pytest.raises(ValueError, match="'pyav' or 'torchcodec', got 'cv2'"): get_reader('cv2')
    monkeypatch.setitem(sys.modules, 'torchcodec', None)
    with pytest.raises(ImportError, match="backend 'torchcodec' cannot be loaded .*, or use 'pyav'"): get_reader('torchcodec')

@pytest.mark.parametrize('kind', kinds)
def test_torchcodec_gives_the_same_frames(files, kind):
    try: Reader = get_reader('torchcodec')
    except ImportError as e: pytest.skip(str(e))
    path,full = files[kind]
    idxs = [n//2, 3, 41, 42]
    with Reader(path) as v, VideoReader(path) as plain:
        assert (v.frames(idxs).float()-torch.from_numpy(full[:,idxs]).float()).abs().mean()<1
        assert (v.frames(idxs, (24,32)).float()-plain.frames(idxs, (24,32)).float()).abs().mean()<4

def wrong_span(path):
    "The first of three random spans of 16 frames that a full sequential decode has otherwise, or None"
    with av.open(str(path)) as c: full = [f.to_ndarray(format='rgb24') for f in c.decode(video=0)]
    rng = random.Random(path.name)
    with VideoReader(path) as v:
        if len(v)!=len(full): return f'{path}: {len(v)} frames, not {len(full)}'
        for i in (rng.randrange(len(full)-15) for _ in range(3)):
            if not np.array_equal(v.frames(range(i, i+16)).permute(1,2,3,0).numpy(), full[i:i+16]): return f'{path}: frames from {i}'

def test_real_and_rendered_clips(pytestconfig):
    "Every sixth clip of the data beside this repository, where it is there"
    data = pytestconfig.rootpath.parent/'shared'/'data'
    if not data.exists(): pytest.skip(f'no videos to check in {data}')
    paths = get_video_files(data)
    assert len(paths)>1000
    with ProcessPoolExecutor(2) as pool: assert not [o for o in pool.map(wrong_span, sorted(paths)[::6], chunksize=20) if o]

def test_avi_with_b_frames_is_not_trusted(files):
    "Its packets carry the times of decoding, and packed ones (XviD) are more than its frames: its frames are counted by decoding"
    with VideoReader(files['b-frames.avi'][0]) as v: assert v.index is None
    with VideoReader(files['xvid.avi'][0]) as v: assert v.index is not None
