"Turn photographs in the notebooks' outputs from PNG to JPEG, a fifth of the size; drawings stay: `python docs/pictures.py`"
import base64,io
from pathlib import Path
from fastcore.nbio import read_nb,write_nb
from PIL import Image

root = Path(__file__).resolve().parent.parent

def as_jpeg(png):
    "The picture `png` as JPEG, in base64 like it, or None where that takes more than half of its bytes"
    img,res = Image.open(io.BytesIO(base64.b64decode(png))).convert('RGBA'),io.BytesIO()
    Image.alpha_composite(Image.new('RGBA', img.size, 'white'), img).convert('RGB').save(res, 'JPEG', quality=85, optimize=True)
    res = base64.b64encode(res.getvalue()).decode()
    return res if len(res)<len(png)/2 else None

def slim(nb):
    "Turn the photographs of `nb` to JPEG, in place; whether there were any"
    found = False
    for o in (o for c in nb.cells for o in c.get('outputs', [])):
        data = o.get('data', {})
        if 'image/png' in data and (jpeg := as_jpeg(''.join(data['image/png']))):
            del data['image/png']
            data['image/jpeg'],found = jpeg,True
    return found

if __name__=='__main__':
    for p in sorted((root/'nbs').rglob('*.ipynb')):
        if '.ipynb_checkpoints' not in p.parts and slim(nb := read_nb(p)): write_nb(nb, p)
