"Draw `nbs/images/rates.gif`, one video at four playback rates, from the packaged sample: `python docs/animation.py`"
from pathlib import Path
from matplotlib.font_manager import findfont
from PIL import Image,ImageColor,ImageDraw,ImageFont
from prp_fastai.all import read_frames,sample_videos

rates,clip_len,side,gap = (1,2,4,8),16,(168,126),8
colors = ('#8fd3ff','#b9e07c','#ffd166','#ff8f70')

def picture(frames, i):
    "Frame `i` of the four clips, side by side, and over a line as long as the video what of it each has shown"
    w,h = side
    width = len(rates)*w+(len(rates)-1)*gap
    im = Image.new('RGB', (width, h+54), '#17181c')
    draw,large,small = ImageDraw.Draw(im),*(ImageFont.truetype(findfont('DejaVu Sans:bold'), o) for o in (15, 10))
    for k,(s,color) in enumerate(zip(rates, colors)):
        x,y,step = k*(w+gap),h+8+k*11,(width-58)/(clip_len*rates[-1])
        im.paste(Image.fromarray(frames[s*i]).resize(side, Image.LANCZOS), (x, 0))
        draw.text((x+7, 5), f'{s}×', fill=color, font=large, stroke_width=2, stroke_fill='#17181c')
        draw.text((8, y-2), f'{s}×', fill=color, font=small)
        draw.line((34, y+4, 34+clip_len*s*step, y+4), fill='#3a3c44', width=3)
        for j in range(i+1): draw.ellipse((34+j*s*step-2, y+2, 34+j*s*step+2, y+6), fill=color)
    return im

if __name__=='__main__':
    frames = read_frames(sample_videos()/'video/Cartwheel/v_Cartwheel_g01_c01.mp4', range(clip_len*rates[-1])).permute(1,2,3,0).numpy()
    ims = [picture(frames, i) for i in range(clip_len)]
    palette = Image.new('RGB', (ims[0].width, 4*ims[0].height))
    for k in range(4): palette.paste(ims[k*5], (0, k*ims[0].height))
    palette = palette.quantize(128-len(colors))
    palette.putpalette(palette.getpalette()[:3*(128-len(colors))] + [v for o in colors for v in ImageColor.getrgb(o)])
    ims = [o.quantize(palette=palette, dither=Image.Dither.NONE) for o in ims]
    out = Path(__file__).resolve().parent.parent/'nbs/images/rates.gif'
    out.parent.mkdir(exist_ok=True)
    ims[0].save(out, save_all=True, append_images=ims[1:], duration=[130]*(clip_len-1)+[900], loop=0, optimize=True)
