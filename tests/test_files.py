"Whatever a file is: the frames of a sequential decode, by number, or a stated reason"
import io,itertools,json,multiprocessing,os,random,av,numpy as np,pandas as pd,pytest,torch
from av.stream import Disposition
from pathlib import Path
from prp_fastai.all import *
from conftest import pattern

N,H,W = 40,48,64
still,small = pattern(N, H, W),pattern(N, 24, 32, seed=3)

def images(x=still, fmt='yuv420p'):
    frames = np.ascontiguousarray(x.permute(1,2,3,0).numpy())
    return [av.VideoFrame.from_ndarray(f, format='rgb24').reformat(format=fmt) for f in frames]

def add(c, codec, x=still, fmt='yuv420p', rate=25, edit=noop, **options):
    "A stream of container `c` for frames `x`"
    s = c.add_stream(codec, rate=rate, options={k: str(v) for k,v in options.items()})
    s.height,s.width,s.pix_fmt,s.codec_context.thread_count = *x.shape[2:],fmt,1
    edit(s)
    return s

def encode(path, codec='libx264', x=still, fmt='yuv420p', at=None, container_options={}, **kwargs):
    "Write frames `x`, at times `at` in frames if they are given"
    with av.open(str(path), 'w', container_options={k: str(v) for k,v in container_options.items()}) as c:
        s = add(c, codec, x, fmt, **kwargs)
        for i,f in enumerate(images(x, fmt)):
            if at is not None: f.pts = int(at[i])
            c.mux(s.encode(f))
        c.mux(s.encode(None))

def packets(codec='libx264', x=still, fmt='yuv420p', **kwargs):
    "These frames, encoded, as a container of its own"
    at = io.BytesIO()
    with av.open(at, 'w', format='matroska' if codec.startswith(('libvpx','mjpeg')) else 'mp4') as c:
        s = add(c, codec, x, fmt, **kwargs)
        for f in images(x, fmt): c.mux(s.encode(f))
        c.mux(s.encode(None))
    at.seek(0)
    return av.open(at)

def remux(path, source, change=lambda i,p: p, **kwargs):
    "Copy packets to `path`; `change` gives each, by its number, anew, or None to leave it out"
    with source, av.open(str(path), 'w', **kwargs) as c:
        s = c.add_stream_from_template(source.streams.video[0])
        for i,p in enumerate(o for o in source.demux(video=0) if o.size):
            p = change(i, p)
            if p is not None: p.stream = s; c.mux(p)

def lose(*which): return lambda i,p: None if i in which else p
def from_(k): return lambda i,p: p if i>=k else None
def spoil(*which):
    "Packets of the same length that mean nothing"
    def change(i, p):
        if i not in which: return p
        o = av.Packet(bytes(p)[:6]+bytes([255])*(p.size-6))
        o.pts,o.dts,o.time_base,o.is_keyframe = p.pts,p.dts,p.time_base,p.is_keyframe
        return o
    return change
def shift(by, last=10**9):
    "Times moved by so many frames"
    def change(i, p):
        k = round(1/25/p.time_base)
        if i<last: p.pts,p.dts = p.pts+by*k,p.dts+by*k
        return p
    return change
def twice(*which):
    "Times of the packet before, for packets with these numbers"
    last = []
    def change(i, p):
        if i in which: p.pts = p.dts = last[-1]
        last.append(p.pts)
        return p
    return change

def several(path, kinds, **kwargs):
    "A file with a stream for each of `kinds`: (codec, frames, what is set on it)"
    with av.open(str(path), 'w', **kwargs) as c:
        fmts = ['yuvj420p' if codec=='mjpeg' else 'yuv420p' for codec,_,_ in kinds]
        made = [(add(c, codec, x, fmt, edit=edit), images(x, fmt)) for (codec,x,edit),fmt in zip(kinds, fmts)]
        for i in range(N):
            for s,fs in made:
                if i<len(fs): c.mux(s.encode(fs[i]))
        for s,_ in made: c.mux(s.encode(None))

def disposed(o):
    def edit(s): s.disposition = o
    return edit
cover,default = disposed(Disposition.attached_pic),disposed(Disposition.default)
def turned(*args):
    def edit(s): s.set_display_rotation(*args)
    return edit
def tagged(space, primaries=2, trc=2, kind=1):
    def edit(s):
        o = s.codec_context
        o.colorspace,o.color_primaries,o.color_trc,o.color_range = space,primaries,trc,kind
    return edit

def elementary(path, *sizes, codec):
    "Streams of several sizes, one after the other, in no container"
    parts = [path.with_name(f'{h}{path.name}') for h,_ in sizes]
    for part,(h,w) in zip(parts, sizes): encode(part, codec, pattern(20, h, w), g=10)
    path.write_bytes(b''.join(o.read_bytes() for o in parts))

def crc(data):
    c = 2**32-1
    for bit in (byte>>i & 1 for byte in data for i in range(7, -1, -1)):
        c = (c<<1 ^ (0x04C11DB7 if c>>31 ^ bit else 0)) & 2**32-1
    return c.to_bytes(4, 'big')

def programmes(path, *videos):
    "A transport stream with a programme for each video, as a broadcast has them"
    streams,table = [],b'\0\1\xc1\0\0'
    for k,x in enumerate(videos, 1):
        part = path.with_name(f'{k}{path.name}')
        pids = dict(mpegts_start_pid=256*k, mpegts_pmt_start_pid=4096+k, mpegts_service_id=k)
        encode(part, x=x, container_options=pids, **bf)
        data = part.read_bytes()
        packets = [data[i:i+188] for i in range(0, len(data), 188)]
        streams.append([o for o in packets if o[1:3]!=b'\x40\0' and o[1:3]!=b'\0\0'])
        table += k.to_bytes(2, 'big')+(0xE000+4096+k).to_bytes(2, 'big')
    section = b'\0\xb0'+bytes([len(table)+4])+table
    head = b'G\x40\0\x10\0'+section+crc(section)
    mixed = itertools.chain(*itertools.zip_longest(*streams, fillvalue=b''))
    path.write_bytes(head.ljust(188, b'\xff')+b''.join(mixed))

def repeated(counts, x=still):
    "Each frame of `x` as often as `counts`, over and over, says"
    return x[:,[i for i,k in zip(range(x.shape[1]), itertools.cycle(counts)) for _ in range(k)]]

def with_field(path, **kwargs): encode(path, 'mpeg2video', g=12, bf=2, flags='+ildct+ilme', **kwargs)

bf = dict(g=12, bf=2)
open_gop = {'x264-params': 'open-gop=1:keyint=10:bframes=3:repeat-headers=1'}
x265 = {'x265-params': 'log-level=none:keyint=12'}
x265_b = {'x265-params': 'log-level=none:bframes=3:keyint=12'}
plain = {
    'h264.mp4': dict(**bf), 'h264-long.mp4': dict(g=250, bf=3),
    'h264-open.mkv': open_gop,
    'h264-refresh.mp4': {'x264-params':'intra-refresh=1:keyint=15'},
    'h264.m4v': dict(g=10), 'h264.3gp': dict(g=10), 'h264.f4v': dict(**bf), 'h264.flv': dict(**bf),
    'h264.avi': dict(**bf), 'h264.ts': dict(**bf), 'h264.m2ts': dict(**bf), 'h264.nut': dict(**bf),
    'h264.mxf': dict(g=1, fmt='yuv422p10', x=pattern(N, 48, 64)), 'h264.h264': dict(**bf), 'h264.wtv': dict(**bf),
    'h264.asf': dict(**bf), 'h264-yuv444.mkv': dict(fmt='yuv444p', **bf),
    'h264-rgb.mkv': dict(codec='libx264rgb', fmt='rgb24', g=10),
    'h264-10bit.mkv': dict(fmt='yuv420p10le', **bf),
    'hevc.mp4': dict(codec='libx265', **x265_b),
    'hevc.ts': dict(codec='libx265', **x265_b),
    'hevc.hevc': dict(codec='libx265', **x265),
    'hevc-10bit.mkv': dict(codec='libx265', fmt='yuv420p10le', **x265),
    'mpeg1.mpg': dict(codec='mpeg1video', **bf), 'mpeg1.m1v': dict(codec='mpeg1video', **bf),
    'mpeg1.ts': dict(codec='mpeg1video', **bf), 'mpeg2.mpg': dict(codec='mpeg2video', **bf),
    'mpeg2.vob': dict(codec='mpeg2video', **bf),
    'mpeg2.m2v': dict(codec='mpeg2video', **bf), 'mpeg2.ts': dict(codec='mpeg2video', **bf),
    'mpeg2.mkv': dict(codec='mpeg2video', **bf), 'mpeg2.mxf': dict(codec='mpeg2video', **bf),
    'mpeg4.mp4': dict(codec='mpeg4', **bf), 'mpeg4.avi': dict(codec='mpeg4', g=12),
    'mpeg4-b.avi': dict(codec='mpeg4', **bf), 'mpeg4.mkv': dict(codec='mpeg4', **bf),
    'mpeg4.3g2': dict(codec='mpeg4', g=10),
    'h263.3gp': dict(codec='h263', x=pattern(N, 96, 128), g=12),
    'h263.h263': dict(codec='h263', x=pattern(N, 96, 128), g=12),
    'div3.avi': dict(codec='msmpeg4', g=12), 'mp42.avi': dict(codec='msmpeg4v2', g=12),
    'wmv1.wmv': dict(codec='wmv1', g=12), 'wmv2.asf': dict(codec='wmv2', g=12),
    'vp8.webm': dict(codec='libvpx', g=12, **{'auto-alt-ref':1, 'lag-in-frames':16, 'deadline':'realtime'}),
    'vp8.ivf': dict(codec='libvpx', g=12, deadline='realtime'),
    'vp8.ogv': dict(codec='libvpx', g=12, deadline='realtime'),
    'vp9.webm': dict(codec='libvpx-vp9', g=12, deadline='good', **{'auto-alt-ref':1, 'lag-in-frames':16, 'cpu-used':5}),
    'vp9.mp4': dict(codec='libvpx-vp9', g=12, deadline='realtime'),
    'vp9.ivf': dict(codec='libvpx-vp9', g=12, deadline='realtime'),
    'av1.mp4': dict(codec='libsvtav1', g=12, preset=12), 'av1.webm': dict(codec='libsvtav1', g=12, preset=12),
    'av1.obu': dict(codec='libsvtav1', g=12, preset=12),
    'mjpeg.avi': dict(codec='mjpeg', fmt='yuvj420p'), 'mjpeg.mov': dict(codec='mjpeg', fmt='yuvj420p'),
    'mjpeg.mjpeg': dict(codec='mjpeg', fmt='yuvj420p'), 'prores.mov': dict(codec='prores_ks', fmt='yuv422p10le'),
    'png.mov': dict(codec='png', fmt='rgb24'), 'qtrle.mov': dict(codec='qtrle', fmt='rgb24'),
    'raw.avi': dict(codec='rawvideo', fmt='bgr24'), 'raw.y4m': dict(codec='wrapped_avframe'),
    'jpeg2000.mov': dict(codec='jpeg2000'),
    'ffv1.mkv': dict(codec='ffv1', g=5), 'ffv1.nut': dict(codec='ffv1', fmt='yuv420p10le'),
    'huffyuv.avi': dict(codec='huffyuv', fmt='yuv422p'), 'utvideo.avi': dict(codec='utvideo', fmt='yuv422p'),
    'magicyuv.avi': dict(codec='magicyuv', fmt='gbrp'),
    'cinepak.mov': dict(codec='cinepak', fmt='rgb24', x=pattern(16)), 'zmbv.avi': dict(codec='zmbv', fmt='bgr0'),
    'flv1.flv': dict(codec='flv', g=12), 'flashsv.flv': dict(codec='flashsv', fmt='bgr24'),
    'gif.gif': dict(codec='gif', fmt='rgb8'), 'apng.apng': dict(codec='apng', fmt='rgb24'),
    'rv10.rm': dict(codec='rv10', x=pattern(N, 96, 128), g=12),
    'rv20.rm': dict(codec='rv20', x=pattern(N, 96, 128), g=12),
    'svq1.mov': dict(codec='svq1', fmt='yuv410p', g=12), 'asv2.avi': dict(codec='asv2'),
    'snow.avi': dict(codec='snow', g=12),
}
uneven = np.cumsum([0]+[1+i%5 for i in range(N-1)])
special = {
    'vfr.mp4': lambda p: encode(p, at=uneven, **bf), 'vfr.mkv': lambda p: encode(p, at=uneven, **bf),
    'vfr.webm': lambda p: encode(p, 'libvpx-vp9', at=uneven, g=12, deadline='realtime'),
    'held.mkv': lambda p: encode(p, at=np.cumsum([0]+[1+100*(i==20) for i in range(N-1)]), g=10),
    'turned.mp4': lambda p: encode(p, edit=turned(90)), 'upside-down.mov': lambda p: encode(p, edit=turned(180)),
    'mirrored.mp4': lambda p: encode(p, edit=turned(0, True)),
    'flipped.mp4': lambda p: encode(p, edit=turned(0, False, True)),
    'turned-and-mirrored.mp4': lambda p: encode(p, edit=turned(270, True)),
    'turned.mkv': lambda p: encode(p, edit=turned(270)),
    'hdr.mp4': lambda p: encode(p, 'libx265', fmt='yuv420p10le', edit=tagged(9, 9, 16), **x265),
    'hlg.mkv': lambda p: encode(p, fmt='yuv420p10le', edit=tagged(9, 9, 18), **bf),
    'full-range.mp4': lambda p: encode(p, edit=tagged(1, 1, 1, 2)),
    'constant-luminance.mp4': lambda p: encode(p, edit=tagged(10)), 'ycgco.mkv': lambda p: encode(p, edit=tagged(8)),
    'ictcp.mp4': lambda p: encode(p, edit=tagged(14, 9, 16)),
    'primaries.mp4': lambda p: encode(p, edit=tagged(2, 12, 13)),
    'interlaced.mpg': with_field, 'interlaced.ts': with_field,
    'telecine.mp4': lambda p: encode(p, x=repeated((2,3), still[:,:20]), rate=30, **bf),
    'from-12-fps.mkv': lambda p: encode(p, x=repeated((2,), still[:,:20]), **bf),
    'lost.mkv': lambda p: remux(p, packets(**bf), lose(7, 20, 33)),
    'lost.mp4': lambda p: remux(p, packets(**bf), lose(7, 20, 33)),
    'lost.ts': lambda p: remux(p, packets(**bf), lose(7, 20, 33)),
    'lost-key.mkv': lambda p: remux(p, packets(g=10, bf=0), lose(10)),
    'lost.avi': lambda p: remux(p, packets('mpeg4', g=12), lose(5, 20)),
    'lost-mpeg2.ts': lambda p: remux(p, packets('mpeg2video', **bf), lose(5, 12, 20)),
    'lost-mpeg1.mpg': lambda p: remux(p, packets('mpeg1video', **bf), lose(5, 20)),
    'lost-vp9.webm': lambda p: remux(p, packets('libvpx-vp9', g=12, deadline='realtime'), lose(5, 12)),
    'spoilt.mp4': lambda p: remux(p, packets(**bf), spoil(15)),
    'spoilt.mkv': lambda p: remux(p, packets(**bf), spoil(12, 13, 30)),
    'spoilt-hevc.mp4': lambda p: remux(p, packets('libx265', **x265), spoil(15)),
    'spoilt.avi': lambda p: remux(p, packets('mpeg4', g=12), spoil(15)),
    'spoilt-vp8.webm': lambda p: remux(p, packets('libvpx', g=12, deadline='realtime'), spoil(15)),
    'spoilt-mjpeg.avi': lambda p: remux(p, packets('mjpeg', fmt='yuvj420p'), spoil(15)),
    'midgop.ts': lambda p: remux(p, packets(g=20, bf=2), from_(9)),
    'midgop.mkv': lambda p: remux(p, packets(g=20, bf=2), from_(9)),
    'nokey.mp4': lambda p: remux(p, packets(g=20, bf=2), lose(0)),
    'midgop-mpeg2.ts': lambda p: remux(p, packets('mpeg2video', **bf), from_(5)),
    'midgop-mpeg1.mpg': lambda p: remux(p, packets('mpeg1video', **bf), from_(5)),
    'midgop-hevc.ts': lambda p: remux(p, packets('libx265', **x265), from_(4)),
    'midgop-open.ts': lambda p: remux(p, packets(**open_gop), from_(12)),
    'negative.mp4': lambda p: remux(p, packets(**bf), shift(-5)),
    'negative.mkv': lambda p: remux(p, packets(**bf), shift(-5)),
    'late.ts': lambda p: remux(p, packets(**bf), shift(90000)),
    'negative.nut': lambda p: remux(p, packets(**bf), shift(-5)),
    'edit-list.mp4': lambda p: remux(p, packets(**bf), shift(-7), options=dict(use_editlist='1', avoid_negative_ts='disabled')),
    'fragmented.mp4': lambda p: remux(p, packets(**bf), options=dict(movflags='frag_keyframe+empty_moov')),
    'same-times.mkv': lambda p: remux(p, packets('mjpeg', fmt='yuvj420p'), twice(8, 20)),
    'cover.mp4': lambda p: several(p, [('mjpeg', pattern(1, 200, 300), cover), ('libx264', still, noop)]),
    'thumbnail.mov': lambda p: several(p, [('mjpeg', pattern(1, 96, 128), noop), ('libx264', still, noop)]),
    'thumbnail.mkv': lambda p: several(p, [('mjpeg', pattern(1, 96, 128), noop), ('libx264', still, noop)]),
    'low-first.mkv': lambda p: several(p, [('libx264', small, noop), ('libx264', still, default)]),
    'two-streams.ts': lambda p: several(p, [('libx264', still, noop), ('mpeg2video', small, noop)]),
    'two-programmes.ts': lambda p: programmes(p, still, small),
    'states-1325-fps.mkv': lambda p: encode(p, at=range(0, 53*N, 53), rate=1325),
    'size-changes.m2v': lambda p: elementary(p, (48,64), (96,128), codec='mpeg2video'),
    'size-changes.h264': lambda p: elementary(p, (48,64), (24,32), codec='libx264'),
}

upright = {'turned.mp4': lambda x: np.rot90(x), 'upside-down.mov': lambda x: np.rot90(x, 2), 'mirrored.mp4': lambda x: x[:,::-1],
           'flipped.mp4': lambda x: x[::-1], 'turned-and-mirrored.mp4': lambda x: np.rot90(x, 3)[:,::-1], 'turned.mkv': lambda x: np.rot90(x, 3)}
film = {'cover.mp4': 0, 'thumbnail.mov': 1, 'thumbnail.mkv': 1, 'low-first.mkv': 1}
patched = ('spoilt.mkv','spoilt-vp8.webm')

def sequential(path, stream=None):
    "All frames that decode, from the beginning on; a matrix that the scaler does not know is left out"
    full = []
    with av.open(f'file:{path}') as c:
        s = c.streams.best('video') if stream is None else c.streams.video[stream]
        s.codec_context.thread_count = 1
        for p in c.demux(s):
            try: frames = p.decode()
            except av.FFmpegError: continue
            for f in frames:
                if f.colorspace not in (0,1,2,4,5,6,7,9): f.colorspace = 2
                full.append(f.to_ndarray(format='rgb24'))
            del frames
    return full

@pytest.fixture(autouse=True)
def quiet(monkeypatch): monkeypatch.setenv('SVT_LOG', '1')

def make(folder, name):
    path = folder/name
    if name in plain: encode(path, **plain[name])
    else: special[name](path)
    return path

def wrong(path, full, known, rng, n=8):
    "Numbers of frames that a reader, which has given others before, gives otherwise than `full` has them"
    with VideoReader(path, known) as v:
        idxs = [rng.randrange(len(v)) for _ in range(n)]
        return [i for i in idxs if not np.array_equal(v.frames([i])[:,0].permute(1,2,0).numpy(), full[i])]

@pytest.mark.parametrize('name', [*plain,*special])
def test_frames_by_number_are_those_of_a_sequential_decode(tmp_path, name):
    "In whatever container, codec and state; what a damaged file shows may change each time, then it is broken"
    path,rng = make(tmp_path, name),random.Random(name)
    row = scan_video(path)
    if name in patched and row['status']=='broken': assert 'differ each time they are decoded' in row['reason']; return
    full = [upright.get(name, lambda x: x)(o) for o in sequential(path, film.get(name))]
    assert row['status']=='ok' and row['n_frames']==len(full)>=16
    known = known_of(pd.Series(row))
    assert not wrong(path, full, known, rng) and not wrong(path, full, None, rng, 3)
    if len({o.shape for o in full})==1:
        idxs = rng.sample(range(len(full)), 9)
        with VideoReader(path, known) as v: several = v.frames(idxs).permute(1,2,3,0).numpy()
        assert np.array_equal(several, [full[i] for i in idxs])

def test_the_page_counts_them():
    kinds = {(Path(k).suffix, o.get('codec', 'libx264')) for k,o in plain.items()}
    page = (Path(__file__).parent.parent/'nbs'/'03a_manifest.ipynb').read_text()
    assert len(kinds)>=40 and f'makes {len(plain)+len(special)} files of {len(kinds)} kinds' in page

says = {
    'h264.mp4': ('', 0), 'vfr.mp4': ('', 0), 'turned.mp4': ('', 0), 'two-programmes.ts': ('', 0), 'vp8.webm': ('', 0),
    'mpeg4-b.avi': ('', 0),
    'lost.mkv': ('its times have gaps, where 3 frames would fit', 0),
    'lost.ts': ('its times have gaps, where 3 frames would fit', 0),
    'lost-key.mkv': ('8 of 39 frames cannot be decoded; its times have gaps, where 9 frames would fit', 8),
    'spoilt.mp4': ('1 of 40 frames cannot be decoded', 1), 'spoilt-mjpeg.avi': ('1 of 40 frames cannot be decoded', 1),
    'midgop.ts': ('11 of 31 frames cannot be decoded', 11), 'midgop.mkv': ('11 of 31 frames cannot be decoded', 11),
    'nokey.mp4': ('19 of 39 frames cannot be decoded', 19),
    'held.mkv': ('its times have gaps, where 100 frames would fit', 0)}

@pytest.mark.parametrize('name', says)
def test_a_scan_says_what_is_missing(tmp_path, name):
    row = scan_video(make(tmp_path, name))
    assert row['status']=='ok' and (row['reason'],row['n_missing'])==says[name]

def test_a_recording_of_which_nothing_decodes_is_broken(tmp_path):
    remux(tmp_path/'a.ts', packets(g=50, bf=2), from_(5))
    row = scan_video(tmp_path/'a.ts')
    assert (row['status'],row['n_frames'])==('broken',0) and 'no frame can be decoded' in row['reason']

@pytest.mark.parametrize('name', ['telecine.mp4','from-12-fps.mkv'])
def test_frames_that_repeat_are_counted(tmp_path, name):
    "Those that are encoded anew, as key frames, may differ a little"
    row = scan_video(make(tmp_path, name))
    made = {'telecine.mp4': 30, 'from-12-fps.mkv': 20}[name]
    assert .8*made<=row['n_same']<=made and scan_video(make(tmp_path, 'h264.mp4'))['n_same']==0

def test_what_hardly_moves_is_no_repeat(tmp_path):
    x = torch.full((3,20,H,W), 90, dtype=torch.uint8)
    for i in range(20): x[:,i,10:14,2*i:2*i+4] = 200
    encode(tmp_path/'a.mp4', x=x, crf=18)
    assert scan_video(tmp_path/'a.mp4')['n_same']==0

def test_the_film_is_read_beside_pictures_and_small_streams(tmp_path):
    for name in film:
        info = probe(make(tmp_path, name))
        assert (info.n_frames,info.height,info.width)==(N,H,W), name

def test_rate_and_duration_come_from_times(tmp_path):
    path = make(tmp_path, 'states-1325-fps.mkv')
    with av.open(str(path)) as c: assert c.streams.video[0].average_rate==1325
    assert (probe(path).fps,probe(path).duration)==(25, 1.6)
    for name,fps,seconds in (('h264.ts',25,1.6), ('telecine.mp4',30,50/30), ('lost.mkv',25,1.6), ('vfr.mp4',40/4.72,4.72),
                             ('h264.h264',25,1.6), ('mpeg4-b.avi',25,1.6)):
        info = probe(make(tmp_path, name))
        assert info.fps==pytest.approx(fps, .002) and info.duration==pytest.approx(seconds, .002), name

def test_a_matrix_that_the_scaler_does_not_know_is_read_as_none(tmp_path):
    encode(tmp_path/'plain.mp4')
    want = read_frames(tmp_path/'plain.mp4', range(0, N, 7), size=(24,32))
    for k in (3,8,10,11,14):
        encode(tmp_path/f'{k}.mp4', edit=tagged(k))
        assert torch.equal(read_frames(tmp_path/f'{k}.mp4', range(0, N, 7), size=(24,32)), want), k
        with VideoReader(tmp_path/f'{k}.mp4') as v, VideoReader(tmp_path/'plain.mp4') as p:
            assert all(map(torch.equal, v.planes([3], (24,32)), p.planes([3], (24,32))))

def test_mirrored_frames_in_yuv(tmp_path):
    for name in upright:
        with VideoReader(make(tmp_path, name)) as v:
            size = v.info.height,v.info.width
            assert (yuv_to_rgb(*v.planes([3], size)).float()-v.frames([3]).float()).abs().mean()<8, name

def test_relative_names_with_a_colon(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video('cam1:0.mp4', pattern(20))
    assert probe('cam1:0.mp4').n_frames==probe(Path('cam1:0.mp4')).n_frames==20
    assert scan_videos(['cam1:0.mp4']).status[0]=='ok'

def named_oddly(folder):
    folder = folder/os.fsdecode(b'\xe9t\xe9')
    folder.mkdir()
    for k,name in enumerate([b'caf\xe9.mp4', b'two\nlines.mp4', b'back\rspace.mp4', b'comma,"quote".mp4', 'naïve.mp4'.encode()]):
        write_video(folder/os.fsdecode(name), pattern(40, seed=k), threads=1)
    (folder/os.fsdecode(b'br\xf6ken.mp4')).write_text('no video')
    return folder

def test_names_that_are_no_text(tmp_path, capsys):
    "Scanned, kept in a manifest, said, cached, and read in batches"
    folder = named_oddly(tmp_path)
    files,fname = get_video_files(folder),tmp_path/'m.csv'
    df = scan_videos(files, fname)
    kept = read_manifest(fname)
    assert sorted(df.path)==sorted(kept.path)==sorted(map(str, files)) and (kept.status=='ok').sum()==5
    pd.testing.assert_frame_equal(scan_videos(files, fname), df)
    say_amiss(df)
    assert len(default_manifest(files).name) and 'no video' not in capsys.readouterr().out
    with pytest.raises(VideoError) as e: probe(folder/os.fsdecode(b'br\xf6ken.mp4'))
    str(e.value).encode()
    cache_videos(files, tmp_path/'cache', (27,37), manifest=df)
    for cache in (None, tmp_path/'cache'):
        dls = PRPDataLoaders.from_files(files, manifest=fname, cache=cache, size=24, bs=2, num_workers=0, rates=(1,2))
        assert dls.one_batch()[0].isfinite().all() and len(list(dls.valid))==1
    capsys.readouterr().out.encode()

def test_the_shell_says_names_that_are_no_text(tmp_path, capsys):
    prp_scan(str(named_oddly(tmp_path)), manifest=str(tmp_path/'m.csv'))
    said = capsys.readouterr().out
    assert 'br\ufffdken.mp4 is broken: ' in said and '6 videos, 0.00 hours' in said

def test_two_scans_at_once(tmp_path):
    "The second waits for the first, and finds nothing left to do"
    folder = tmp_path/'videos'; folder.mkdir()
    for i in range(8): write_video(folder/f'{i}.mp4', pattern(100, seed=i), threads=1)
    files,fname = get_video_files(folder),tmp_path/'m.csv'
    jobs = [multiprocessing.get_context('fork').Process(target=scan_videos, args=(files, fname, 1)) for _ in range(3)]
    for o in jobs: o.start()
    for o in jobs: o.join(60)
    assert [o.exitcode for o in jobs]==[0]*3
    assert len(read_manifest(fname))==8 and not fname.with_suffix('.part').exists()

def test_nothing_is_written_if_nothing_is_to_do(tmp_path):
    encode(tmp_path/'a.mp4')
    fname = tmp_path/'kept'/'m.csv'
    scan_videos([tmp_path/'a.mp4'], fname)
    fname.with_suffix('.lock').unlink()
    fname.parent.chmod(0o555)
    try: assert len(scan_videos([tmp_path/'a.mp4'], fname))==1 and [o.name for o in fname.parent.iterdir()]==['m.csv']
    finally: fname.parent.chmod(0o755)

def test_rows_of_an_older_manifest_are_found_out_anew(tmp_path):
    encode(tmp_path/'a.mp4')
    df = scan_videos([tmp_path/'a.mp4'], tmp_path/'m.csv')
    df.drop(columns=['n_missing','n_same']).assign(times='0+512*39 0').to_csv(tmp_path/'m.csv', index=False)
    pd.testing.assert_frame_equal(scan_videos([tmp_path/'a.mp4'], tmp_path/'m.csv'), df)

@pytest.fixture
def rates(tmp_path):
    "One movement of four seconds, filmed at 25, 50 and 12.5 frames a second"
    folder,x = tmp_path/'rates',pattern(200, 32, 44)
    folder.mkdir()
    for k in range(3): write_video(folder/f'fifty{k}.mkv', x, fps=50, crf=4, g=20, threads=1)
    for k in range(5): write_video(folder/f'plain{k}.mp4', x[:,::2], fps=25, crf=4, threads=1)
    write_video(folder/'slow.avi', x[:,::4], fps=12.5, codec='ffv1', pix_fmt='bgr0')
    return folder

def test_mixed_rates_are_said(rates, capsys, tmp_path):
    df = scan_videos(get_video_files(rates))
    usable_videos(df)
    assert 'frames per second (videos): 25 (5), 50 (3), 12 (1)' in capsys.readouterr().out
    prp_scan(str(rates), manifest=str(tmp_path/'m.csv'))
    said = capsys.readouterr().out
    assert 'the same playback rate is a different speed in each: fps=25 would read all alike' in said
    assert '0.01 hours' in said
    usable_videos(df[df.path.str.contains('plain')]); usable_videos(df, fps=25)
    assert 'frames per second' not in capsys.readouterr().out

def test_fps_samples_by_time(rates, tmp_path):
    "All are read as if filmed at 25, from files and from a cache; frames that are not there are those on screen"
    files = get_video_files(rates)
    df = scan_videos(files)
    cache_videos(files, tmp_path/'cache', (32,44), manifest=df)
    plain = VideoReader(rates/'plain0.mp4').frames(range(100)).float()
    openers = OpenVideo(df, size=(32,44), fps=25),OpenVideo(df, tmp_path/'cache', (32,44), fps=25),OpenVideo(fps=25)
    for opener,path in itertools.product(openers, files):
        with opener(path) as v:
            assert len(v)==100
            shown = plain[:,[i//2*2 for i in (3,50,99)]] if path.stem=='slow' else plain[:,[3,50,99]]
            assert (v.frames([3,50,99], (32,44)).float()-shown).abs().mean()<4, path
            with pytest.raises(IndexError): v.frames([100])

def test_dataloaders_at_one_rate(rates, capsys):
    "A clip at rate 4 spans 2.56 seconds of each video; of 200 frames at 50 a second, 100 count"
    dls = PRPDataLoaders.from_folder(rates, fps=25, rates=(1,4), size=28, bs=2, num_workers=0, seed=1)
    assert set(dls.n_frames.values())=={100} and len(dls.train_ds)+len(dls.valid_ds)==9
    for b in dls.train: assert b[0].shape[1:]==(3,16,28,28)
    assert 'frames per second' not in capsys.readouterr().out
    with pytest.raises(ValueError, match='0 training videos'):
        PRPDataLoaders.from_folder(rates, fps=3, rates=(1,), size=28, bs=2, num_workers=0)
    df = pd.DataFrame({'path': [str(o) for o in get_video_files(rates)], 'label': ['a','b','c']*3})
    dls = VideoDataLoaders.from_df(df, fps=25, size=28, bs=2, num_workers=0)
    assert dls.one_batch()[0].shape[1:]==(3,16,28,28) and len(item_tfm(dls, RandomClip).reader(df.path[0]))==100

def test_pretraining_at_one_rate(rates, tmp_path):
    prp_pretrain(str(rates), out=str(tmp_path/'run'), manifest=str(tmp_path/'m.csv'), fps=12.5, rates='1,2', clip_len=8, width=.05,
                 size=32, epochs=1, bs=2, num_workers=0)
    assert json.loads((tmp_path/'run'/'settings.json').read_text())['settings']['fps']==12.5

def test_variable_rates_by_time(tmp_path):
    "At 25 frames a second each picture stands as long as its times say"
    path = make(tmp_path, 'vfr.mkv')
    with VideoReader(path) as v:
        at = ResampledVideo(v, 25, v.index.times, v.index.duration)
        assert at.idxs==[max(i for i in range(N) if uneven[i]<=k) for k in range(uneven[-1]+3)]
        assert torch.equal(at.frames([5,40]), v.frames([at.idxs[5],at.idxs[40]]))

def test_damage_of_all_kinds_is_read_alike_twice(tmp_path):
    "Lost and spoilt packets at random: what is usable has the frames of a sequential decode"
    rng,n = random.Random(0),0
    for k in range(24):
        codec = rng.choice(['libx264','mpeg4','mpeg2video','libx265'])
        options = x265 if codec=='libx265' else dict(g=12, bf=rng.choice([0,2]))
        which = rng.sample(range(1, 36), rng.choice([1,2,4]))
        path = tmp_path/f'{k}{rng.choice([".mkv",".mp4",".ts"])}'
        remux(path, packets(codec, **options), rng.choice([lose, spoil])(*which))
        row = scan_video(path)
        full = sequential(path)
        if row['status']=='broken': assert not full or 'differ each time' in row['reason']; continue
        n += 1
        assert row['n_frames']==len(full) and not wrong(path, full, known_of(pd.Series(row)), rng), path
    assert n>=18

cases = {'lost.mkv': (92,'gaps'), 'matrix10.mp4': (100,''), 'midgop.ts': (50,'22 of 72'), 'mpeg1.mpg': (70,''),
         'nokey.mp4': (50,'49 of 99'), 'onebad.mp4': (99,'1 of 100'), 'thumbfirst.mov': (100,'')}

@pytest.mark.parametrize('name', cases)
def test_small_inputs_beside_the_project(pytestconfig, name):
    folder = pytestconfig.rootpath.parent/'shared'/'cases'
    if not (folder/name).exists(): pytest.skip(f'no {name} in {folder}')
    row,(n,said) = scan_video(folder/name),cases[name]
    assert (row['status'],row['n_frames'])==('ok',n) and said in row['reason'] and bool(said)==bool(row['reason'])
    full = sequential(folder/name, 1 if name=='thumbfirst.mov' else None)
    assert not wrong(folder/name, full, known_of(pd.Series(row)), random.Random(0), 32)
