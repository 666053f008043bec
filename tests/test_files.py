"Whatever a file is: the frames of a sequential decode, by number, or a stated reason"
import io,random,av,numpy as np,pytest,torch
from av.stream import Disposition
from pathlib import Path
from prp_fastai.all import *
from conftest import pattern

N,H,W = 40,48,64
still = pattern(N, H, W)

def images(x=still, fmt='yuv420p'):
    return [av.VideoFrame.from_ndarray(np.ascontiguousarray(f), format='rgb24').reformat(format=fmt) for f in x.permute(1,2,3,0).numpy()]

def add(c, codec, x=still, fmt='yuv420p', rate=25, edit=noop, **options):
    "A stream of container `c` for frames `x`"
    s = c.add_stream(codec, rate=rate, options={k: str(v) for k,v in options.items()})
    s.height,s.width,s.pix_fmt = *x.shape[2:],fmt
    edit(s)
    return s

def encode(path, codec='libx264', x=still, fmt='yuv420p', at=None, container=None, **kwargs):
    "Write frames `x`, at times `at` in frames if they are given"
    with av.open(str(path), 'w', format=container) as c:
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
        if i in which: p.pts = last[-1]
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
def turned(*args):
    def edit(s): s.set_display_rotation(*args)
    return edit
def tagged(space, primaries=2, trc=2, kind=1):
    def edit(s):
        o = s.codec_context
        o.colorspace,o.color_primaries,o.color_trc,o.color_range = space,primaries,trc,kind
    return edit

def joined(path, *sizes, codec='mpeg4', container='avi'):
    "Elementary streams of several sizes, one after the other"
    data = b''
    for h,w in sizes:
        at = io.BytesIO()
        with av.open(at, 'w', format={'mpeg2video':'mpeg2video', 'libx264':'h264'}[codec]) as c:
            s = add(c, codec, pattern(20, h, w), g=10)
            for f in images(pattern(20, h, w)): c.mux(s.encode(f))
            c.mux(s.encode(None))
        data += at.getvalue()
    path.write_bytes(data)

def repeated(counts, x=still):
    "Each frame of `x` as often as `counts`, over and over, says"
    return x[:,[i for i,k in zip(range(x.shape[1]), itertools.cycle(counts)) for _ in range(k)]]

def with_field(path, **kwargs): encode(path, 'mpeg2video', g=12, bf=2, flags='+ildct+ilme', **kwargs)

bf = dict(g=12, bf=2)
plain = {
    'h264.mp4': dict(**bf), 'h264-long.mp4': dict(g=250, bf=3), 'h264-open.mkv': {'x264-params':'open-gop=1:keyint=10:bframes=3'}, 'h264-refresh.mp4': {'x264-params':'intra-refresh=1:keyint=15'},
    'h264.m4v': dict(g=10), 'h264.3gp': dict(g=10), 'h264.f4v': dict(**bf), 'h264.flv': dict(**bf), 'h264.avi': dict(**bf), 'h264.ts': dict(**bf), 'h264.m2ts': dict(**bf), 'h264.nut': dict(**bf),
    'h264.mxf': dict(g=1, fmt='yuv422p10', x=pattern(N, 48, 64)), 'h264.h264': dict(**bf), 'h264.wtv': dict(**bf), 'h264.asf': dict(**bf), 'h264-yuv444.mkv': dict(fmt='yuv444p', **bf), 'h264-rgb.mkv': dict(codec='libx264rgb', fmt='rgb24', g=10),
    'h264-10bit.mkv': dict(fmt='yuv420p10le', **bf), 'hevc.mp4': dict(codec='libx265', **{'x265-params':'log-level=none:bframes=3:keyint=12'}), 'hevc.ts': dict(codec='libx265', **{'x265-params':'log-level=none:bframes=3:keyint=12'}),
    'hevc.hevc': dict(codec='libx265', **{'x265-params':'log-level=none:keyint=12'}), 'hevc-10bit.mkv': dict(codec='libx265', fmt='yuv420p10le', **{'x265-params':'log-level=none'}),
    'mpeg1.mpg': dict(codec='mpeg1video', **bf), 'mpeg1.m1v': dict(codec='mpeg1video', **bf), 'mpeg1.ts': dict(codec='mpeg1video', **bf), 'mpeg2.mpg': dict(codec='mpeg2video', **bf), 'mpeg2.vob': dict(codec='mpeg2video', **bf),
    'mpeg2.m2v': dict(codec='mpeg2video', **bf), 'mpeg2.ts': dict(codec='mpeg2video', **bf), 'mpeg2.mkv': dict(codec='mpeg2video', **bf), 'mpeg2.mxf': dict(codec='mpeg2video', **bf),
    'mpeg4.mp4': dict(codec='mpeg4', **bf), 'mpeg4.avi': dict(codec='mpeg4', g=12), 'mpeg4-b.avi': dict(codec='mpeg4', **bf), 'mpeg4.mkv': dict(codec='mpeg4', **bf), 'mpeg4.3g2': dict(codec='mpeg4', g=10),
    'h263.3gp': dict(codec='h263', x=pattern(N, 96, 128), g=12), 'h263.h263': dict(codec='h263', x=pattern(N, 96, 128), g=12),
    'div3.avi': dict(codec='msmpeg4', g=12), 'mp42.avi': dict(codec='msmpeg4v2', g=12), 'wmv1.wmv': dict(codec='wmv1', g=12), 'wmv2.asf': dict(codec='wmv2', g=12),
    'vp8.webm': dict(codec='libvpx', g=12, **{'auto-alt-ref':1, 'lag-in-frames':16, 'deadline':'realtime'}), 'vp8.ivf': dict(codec='libvpx', g=12, deadline='realtime'), 'vp8.ogv': dict(codec='libvpx', g=12, deadline='realtime'),
    'vp9.webm': dict(codec='libvpx-vp9', g=12, **{'auto-alt-ref':1, 'lag-in-frames':16, 'deadline':'good', 'cpu-used':5}), 'vp9.mp4': dict(codec='libvpx-vp9', g=12, deadline='realtime'), 'vp9.ivf': dict(codec='libvpx-vp9', g=12, deadline='realtime'),
    'av1.mp4': dict(codec='libsvtav1', g=12, preset=12), 'av1.webm': dict(codec='libsvtav1', g=12, preset=12), 'av1.obu': dict(codec='libsvtav1', g=12, preset=12),
    'mjpeg.avi': dict(codec='mjpeg', fmt='yuvj420p'), 'mjpeg.mov': dict(codec='mjpeg', fmt='yuvj420p'), 'mjpeg.mjpeg': dict(codec='mjpeg', fmt='yuvj420p'), 'prores.mov': dict(codec='prores_ks', fmt='yuv422p10le'),
    'png.mov': dict(codec='png', fmt='rgb24'), 'qtrle.mov': dict(codec='qtrle', fmt='rgb24'), 'raw.avi': dict(codec='rawvideo', fmt='bgr24'), 'raw.y4m': dict(codec='wrapped_avframe'), 'jpeg2000.mov': dict(codec='jpeg2000'),
    'ffv1.mkv': dict(codec='ffv1', g=5), 'ffv1.nut': dict(codec='ffv1', fmt='yuv420p10le'), 'huffyuv.avi': dict(codec='huffyuv', fmt='yuv422p'), 'utvideo.avi': dict(codec='utvideo', fmt='yuv422p'), 'magicyuv.avi': dict(codec='magicyuv', fmt='gbrp'),
    'cinepak.mov': dict(codec='cinepak', fmt='rgb24', x=pattern(16)), 'zmbv.avi': dict(codec='zmbv', fmt='bgr0'), 'flv1.flv': dict(codec='flv', g=12), 'flashsv.flv': dict(codec='flashsv', fmt='bgr24'),
    'gif.gif': dict(codec='gif', fmt='rgb8'), 'apng.apng': dict(codec='apng', fmt='rgb24'), 'rv10.rm': dict(codec='rv10', x=pattern(N, 96, 128), g=12), 'rv20.rm': dict(codec='rv20', x=pattern(N, 96, 128), g=12),
    'svq1.mov': dict(codec='svq1', fmt='yuv410p', g=12), 'asv2.avi': dict(codec='asv2'), 'snow.avi': dict(codec='snow', g=12),
}
uneven = np.cumsum([0]+[1+i%5 for i in range(N-1)])
special = {
    'vfr.mp4': lambda p: encode(p, at=uneven, **bf), 'vfr.mkv': lambda p: encode(p, at=uneven, **bf), 'vfr.webm': lambda p: encode(p, 'libvpx-vp9', at=uneven, g=12, deadline='realtime'), 'held.mkv': lambda p: encode(p, at=np.cumsum([0]+[1+100*(i==20) for i in range(N-1)]), g=10),
    'turned.mp4': lambda p: encode(p, edit=turned(90)), 'upside-down.mov': lambda p: encode(p, edit=turned(180)), 'mirrored.mp4': lambda p: encode(p, edit=turned(0, True)), 'flipped.mp4': lambda p: encode(p, edit=turned(0, False, True)),
    'turned-and-mirrored.mp4': lambda p: encode(p, edit=turned(270, True)), 'turned.mkv': lambda p: encode(p, edit=turned(270)),
    'hdr.mp4': lambda p: encode(p, 'libx265', fmt='yuv420p10le', edit=tagged(9, 9, 16), **{'x265-params':'log-level=none'}), 'hlg.mkv': lambda p: encode(p, fmt='yuv420p10le', edit=tagged(9, 9, 18), **bf),
    'full-range.mp4': lambda p: encode(p, edit=tagged(1, 1, 1, 2)), 'constant-luminance.mp4': lambda p: encode(p, edit=tagged(10)), 'ycgco.mkv': lambda p: encode(p, edit=tagged(8)), 'ictcp.mp4': lambda p: encode(p, edit=tagged(14, 9, 16)), 'primaries.mp4': lambda p: encode(p, edit=tagged(2, 12, 13)),
    'interlaced.mpg': with_field, 'interlaced.ts': with_field, 'telecine.mp4': lambda p: encode(p, x=repeated((2,3), still[:,:20]), rate=30, **bf), 'from-12-fps.mkv': lambda p: encode(p, x=repeated((2,), still[:,:20]), **bf),
    'lost.mkv': lambda p: remux(p, packets(**bf), lose(7, 20, 33)), 'lost.mp4': lambda p: remux(p, packets(**bf), lose(7, 20, 33)), 'lost.ts': lambda p: remux(p, packets(**bf), lose(7, 20, 33)), 'lost-key.mkv': lambda p: remux(p, packets(g=10, bf=0), lose(10)),
    'lost.avi': lambda p: remux(p, packets('mpeg4', g=12), lose(5, 20)), 'lost-mpeg2.ts': lambda p: remux(p, packets('mpeg2video', **bf), lose(5, 12, 20)), 'lost-mpeg1.mpg': lambda p: remux(p, packets('mpeg1video', **bf), lose(5, 20)), 'lost-vp9.webm': lambda p: remux(p, packets('libvpx-vp9', g=12, deadline='realtime'), lose(5, 12)),
    'spoilt.mp4': lambda p: remux(p, packets(**bf), spoil(15)), 'spoilt.mkv': lambda p: remux(p, packets(**bf), spoil(12, 13, 30)), 'spoilt-hevc.mp4': lambda p: remux(p, packets('libx265', **{'x265-params':'log-level=none:keyint=12'}), spoil(15)), 'spoilt.avi': lambda p: remux(p, packets('mpeg4', g=12), spoil(15)),
    'spoilt-vp8.webm': lambda p: remux(p, packets('libvpx', g=12, deadline='realtime'), spoil(15)), 'spoilt-mjpeg.avi': lambda p: remux(p, packets('mjpeg', fmt='yuvj420p'), spoil(15)),
    'midgop.ts': lambda p: remux(p, packets(g=20, bf=2), from_(9)), 'midgop.mkv': lambda p: remux(p, packets(g=20, bf=2), from_(9)), 'nokey.mp4': lambda p: remux(p, packets(g=20, bf=2), lose(0)), 'midgop-mpeg2.ts': lambda p: remux(p, packets('mpeg2video', **bf), from_(5)), 'midgop-mpeg1.mpg': lambda p: remux(p, packets('mpeg1video', **bf), from_(5)),
    'midgop-hevc.ts': lambda p: remux(p, packets('libx265', **{'x265-params':'log-level=none:keyint=15'}), from_(4)), 'midgop-open.ts': lambda p: remux(p, packets(**{'x264-params':'open-gop=1:keyint=10:bframes=3:repeat-headers=1'}), from_(12)),
    'negative.mp4': lambda p: remux(p, packets(**bf), shift(-5)), 'negative.mkv': lambda p: remux(p, packets(**bf), shift(-5)), 'late.ts': lambda p: remux(p, packets(**bf), shift(90000)), 'negative.nut': lambda p: remux(p, packets(**bf), shift(-5)),
    'edit-list.mp4': lambda p: remux(p, packets(**bf), shift(-7), options=dict(movflags='+faststart', use_editlist='1', avoid_negative_ts='disabled')), 'fragmented.mp4': lambda p: remux(p, packets(**bf), options=dict(movflags='frag_keyframe+empty_moov')), 
    'same-times.mkv': lambda p: remux(p, packets('mjpeg', fmt='yuvj420p'), twice(8, 20)),
    'cover.mp4': lambda p: several(p, [('mjpeg', pattern(1, 200, 300), disposed(Disposition.attached_pic)), ('libx264', still, noop)]), 'thumbnail.mov': lambda p: several(p, [('mjpeg', pattern(1, 96, 128), noop), ('libx264', still, noop)]), 'thumbnail.mkv': lambda p: several(p, [('mjpeg', pattern(1, 96, 128), noop), ('libx264', still, noop)]),
    'low-first.mkv': lambda p: several(p, [('libx264', pattern(N, 24, 32), noop), ('libx264', still, disposed(Disposition.default))]), 'two-programmes.ts': lambda p: several(p, [('libx264', still, noop), ('mpeg2video', pattern(N, 24, 32, seed=3), noop)]),
    'size-changes.m2v': lambda p: joined(p, (48,64), (96,128), codec='mpeg2video'), 'size-changes.h264': lambda p: joined(p, (48,64), (24,32), codec='libx264'),
}
