"What knowing nothing gives, and shortcuts that were planted"
from fractions import Fraction
import pytest,torch
from sklearn.neighbors import KNeighborsClassifier
from conftest import pattern
from prp_fastai.all import *
from prp_fastai.baselines import _scored

rates = 1,2,4,8

# ---- What lengths give

def least(s, l=16): return s*l

def by_hand(lengths, short):
    "Accuracy of saying, for each length, the rate that is most often drawn for it, in whole numbers"
    drawn = defaultdict(Fraction)
    fits = {n: [s for s in rates if n>=least(s)] for n in lengths}
    if short=='leave_out': lengths = [n for n in lengths if n>=least(8)]
    for n in lengths:
        if short=='feasible_rate':
            for s in fits[n]: drawn[n,s] += Fraction(1, len(lengths)*len(fits[n]))
        elif short=='resample':
            for s in fits[n]: drawn[n,s] += Fraction(1, 4*sum(s in fits[o] for o in lengths))
        else:
            for s in rates: drawn[n,s] += Fraction(1, 4*len(lengths))
    return sum(max(drawn[n,s] for s in rates) for n in set(lengths))

@pytest.mark.parametrize('short', ['feasible_rate','resample','loop','leave_out'])
def test_length_chance_is_that_of_counting(short):
    rng = random.Random(0)
    for _ in range(20):
        lengths = [rng.choice((16,20,31,32,64,100,127,128,200)) for _ in range(rng.randint(1, 12))]+[150]
        assert length_chance(lengths, rates, 16, short)==pytest.approx(float(by_hand(lengths, short))), lengths
    assert math.isnan(length_chance([10], short=short))

class Long:
    "A video that has as many frames as its name says"
    def __init__(self, path): self.n = int(Path(path).stem.split('_')[0])
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def __len__(self): return self.n

@pytest.mark.parametrize('short', ['feasible_rate','resample','loop'])
def test_length_chance_is_that_of_the_draws(short):
    "Of the transform itself: the best guess for each length is right as often as is said"
    files = [Path(f'{n}_{i}.mp4') for i,n in enumerate((40,70,70,150,150,150))]
    played = PlaybackRate(short=short, reader=Long)
    played.setups(SimpleNamespace(items=files))
    played.rng,played.idx,seen = random.Random(0),0,Counter()
    for _ in range(6000):
        path = played.rng.choice(files)
        path,s = played._video(path)
        seen[Long(path).n, played.draw(path, Long(path).n, s)[0]] += 1
    right = sum(max(v for (n,_),v in seen.items() if n==m) for m in {n for n,_ in seen})/6000
    assert right==pytest.approx(length_chance([Long(o).n for o in files], short=short), abs=.02)

@pytest.fixture(scope='module')
def mixed(tmp_path_factory):
    "Eight videos that are long enough for all rates, and eight for rate 1 alone"
    path = tmp_path_factory.mktemp('mixed')
    for i in range(16): write_video(path/f'v_{i:02}.mp4', pattern(130 if i%2 else 24, 24, 32, seed=i), crf=20, threads=1)
    return path

def test_videos_too_short_for_a_rate_are_left_out_by_name(mixed, capsys):
    dls = PRPDataLoaders.from_folder(mixed, size=24, bs=4, num_workers=0, valid_pct=.5)
    assert len(dls.train_ds)+len(dls.valid_ds)==16 and rate_chance(dls, get_video_files(mixed))==pytest.approx(.625)
    capsys.readouterr()
    dls = PRPDataLoaders.from_folder(mixed, size=24, bs=4, num_workers=0, valid_pct=.5, short='leave_out')
    said = capsys.readouterr().out
    assert said.startswith('8 of 16 videos are left out: 0 broken, 8 of fewer than 128 frames (')
    assert all(f'v_{i:02}.mp4' in said for i in range(0, 16, 2)) and 'v_01.mp4' not in said
    items = [*dls.train_ds.items,*dls.valid_ds.items]
    assert {int(o.stem[-2:])%2 for o in items}=={1} and len(items)==8
    assert rate_chance(dls)==rate_chance(dls, items)==1/4
    with pytest.raises(VideoError, match='24 frames are too few for a clip at rate 8, which spans 128'): item_tfm(dls, PlaybackRate).draw(mixed/'v_00.mp4', 24)

def test_pretraining_warns_of_lengths_and_says_that_nothing_was_learned(mixed, tmp_path, capsys):
    small = dict(width=.02, size=16, bs=4, epochs=1, num_workers=0, schedule='constant', valid_pct=.5, lr=1e-6)
    prp_pretrain(str(mixed), str(tmp_path/'a'), **small)
    said = capsys.readouterr().out
    given = re.search(r'the lengths of the videos alone give a rate accuracy of (0\.\d{3}) \(1/4 is 0\.250\): compare with that, or leave short videos out of pretraining with --short leave_out\n', said)
    assert float(given[1])>.3 and f'after the last epoch; the lengths of the videos alone give {given[1]}\n' in said
    assert said.count('Nothing was learned by the rate head and the decoder: ')==1
    prp_pretrain(str(mixed), str(tmp_path/'b'), short='leave_out', **small)
    said = capsys.readouterr().out
    assert 'give a rate accuracy of' not in said and 'the lengths of the videos alone give 0.250\n' in said
    assert json.loads((tmp_path/'b/settings.json').read_text())['settings']['short']=='leave_out'

def test_a_scan_says_what_lengths_give(mixed, video_folder, tmp_path, capsys):
    prp_scan(str(mixed), str(tmp_path/'a.csv'), num_workers=1)
    assert 'the lengths of the videos alone give a rate accuracy of 0.625 (1/4 is 0.250)' in (said := capsys.readouterr().out) and '--short leave_out' in said
    prp_scan(str(mixed), str(tmp_path/'a.csv'), rates='1', num_workers=1)
    prp_scan(str(video_folder), str(tmp_path/'b.csv'), num_workers=1)
    assert 'the lengths of the videos alone' not in capsys.readouterr().out

# ---- Has anything been learned?

def test_baselines_of_reconstruction_by_hand():
    set_seed(1)
    batches = [(torch.rand(n,3,4,8,8), torch.zeros(n).long(), torch.rand(n,3,8,8,12), .8+1.2*torch.rand(n,1,8,8,12)) for n in (3,2)]
    G,M = (torch.cat([b[i] for b in batches]) for i in (2,3))
    found = recon_baselines(batches)
    def error(Y): return (M*(Y-G)**2).mean().item()
    c = torch.zeros(3,1,1,1, requires_grad=True)
    best = torch.optim.LBFGS([c], max_iter=50)
    def closure():
        best.zero_grad()
        loss = (M*(c-G)**2).mean(); loss.backward()
        return loss
    for _ in range(5): best.step(closure)
    assert found['one colour']==pytest.approx(error(c.detach()), rel=1e-5)
    assert found['mean colour of each clip']==pytest.approx(error(G.mean((2,3,4), keepdim=True)), rel=1e-5)
    cubes = torch.empty_like(G)
    for t,i,j in itertools.product(range(0,8,4), range(0,8,4), range(0,12,4)): cubes[...,t:t+4,i:i+4,j:j+4] = G[...,t:t+4,i:i+4,j:j+4].mean((2,3,4), keepdim=True)
    assert found['blur of 4x4x4']==pytest.approx(error(cubes), rel=1e-5)

@pytest.fixture(scope='module')
def long(video_folder): return PRPDataLoaders.from_folder(video_folder, size=24, bs=4, num_workers=0, valid_pct=.5)

def test_what_failed_says_which_head_and_no_other(long):
    p,n,floor = .25,6,recon_baselines(long.valid)['one colour']
    least = p+2*math.sqrt(p*(1-p)/n)
    for accuracy,loss_g,heads in ((least-.01, floor, 'rate head and the decoder'), (least+.01, floor, 'decoder'), (least-.01, .9*floor, 'rate head'), (None, floor, 'decoder'), (0., None, 'rate head')):
        assert what_failed(long, accuracy, loss_g).startswith(f'Nothing was learned by the {heads}: ')
    for accuracy,loss_g in ((least+.01, .9*floor), (None, .9*floor), (1., None), (None, None)): assert what_failed(long, accuracy, loss_g)==''
    assert '0.100 on 6 clips is within noise of 0.250' in what_failed(long, .1)

def test_what_failed_goes_by_lengths(mixed):
    files = get_video_files(mixed)
    dls = PRPDataLoaders.from_files(files, valid=files, size=24, bs=4, num_workers=0)
    noise = 2*math.sqrt(.625*.375/16)
    assert '0.840 on 16 clips is within noise of 0.625' in what_failed(dls, .84) and .84<.625+noise
    assert what_failed(dls, .625+noise+.01)==''

# ---- Shortcuts

class Knows(nn.Module):
    "The rate by one number of a clip: that of most of the 15 clips of training whose number is nearest"
    heads = 'rate',
    def __init__(self, f, dls, epochs=5):
        super().__init__()
        self.encoder,self.f = nn.Identity(),f
        x,k = zip(*[(f(b[0].as_subclass(Tensor)), b[1].as_subclass(Tensor)) for _ in range(epochs) for b in dls.train])
        self.near = KNeighborsClassifier(15).fit(torch.cat(x)[:,None], torch.cat(k))
    def rate(self, x): return tensor(self.near.predict_proba(self.f(x)[:,None]))

def difference(x): return x.diff(dim=2).abs().mean((1,2,3,4)).log1p()
def brightness(x): return x.mean((1,2,3,4))

@pytest.fixture
def here(tmp_path, monkeypatch):
    "A folder whose files have the same names in each run, as what is drawn of a video depends on its path"
    monkeypatch.chdir(tmp_path)
    return Path('.')

def drifting(i, size, n=130):
    "A picture that drifts by two pixels a frame, as fast in all videos, in shades of grey"
    h,w = frame_size(size)
    return pattern(n, h//2*2, w//2*2, seed=i)[:1].expand(3,-1,-1,-1)//2+64

def clock(v): return (v.float()*.25+torch.arange(v.shape[1]).view(-1,1,1)*1.2).clamp(0,255).byte()
def twice(v): return v[:,torch.arange(v.shape[1])//2]
def blocks(v):
    "The first and the last frames, of which a clip at rate 8 always has some, are coarse"
    v,ends = v.clone(),[*range(4),*range(120,v.shape[1])]
    coarse = F.avg_pool2d(v[:,ends].float().transpose(0,1), 8, ceil_mode=True)
    v[:,ends] = F.interpolate(coarse, scale_factor=8)[...,:v.shape[2],:v.shape[3]].transpose(0,1).byte()
    return v

def chequers(h, w): return (torch.arange(h)[:,None]+torch.arange(w))%2*2-1
def stamped(v):
    "The number of each frame, modulo 16, in binary, as the sign of faint chequers in each of four columns"
    h,w = v.shape[2:]
    bits = torch.arange(v.shape[1])[:,None]>>torch.arange(4)&1
    return (v.float()+3*chequers(h, w)*(2*bits-1)[:,torch.arange(w)*4//w][:,None]).clamp(0,255).byte()

def stamp(x):
    "How many numbers lie between the stamps of frames of clips `x` (n,3,t,42,42) that follow each other, 1..16"
    marks = (x.mean(1)*chequers(48, 64)[3:45,11:53]).split([5,16,16,5], -1)
    bits = torch.stack([o.sum((2,3))>0 for o in marks], 2)
    return ((bits*2**torch.arange(4)).sum(2).diff(dim=1)%16).float().median(1).values
def planted(folder, f=noop, n=40, size=28, lengths=(130,), crf=12):
    "Videos with a shortcut in them, and DataLoaders of these"
    for i in range(n): write_video(folder/f'v_{i:02}.mp4', f(drifting(i, size, lengths[i%len(lengths)])), crf=crf, threads=1)
    files = sorted(get_video_files(folder))
    return PRPDataLoaders.from_files(files[:n//2], valid=files[n//2:], size=size, bs=8, num_workers=0, crop='center')

def found_in(dls, f):
    "Rows of the table that have a verdict, the table, and the sentence"
    table,said = shortcuts(Learner(dls, Knows(f, dls), loss_func=noop))
    print(table, said)
    named = set(table.index[table.verdict!=''])
    assert all((f'{k} ({table.accuracy[k]:.2f}) ' in said)==(k in named) for k in table.index if k!='frame difference')
    return named,table,said

def test_clean_videos_have_no_shortcut(here):
    named,table,said = found_in(planted(here), difference)
    assert named==set() and said.endswith('No shortcut was found.')
    assert table.accuracy['clips as they are']>.7 and table.accuracy['one frame']==.25

@pytest.mark.parametrize('f,model,names', [(clock,brightness,{'one frame','shuffled frames'}), (twice,difference,{'repeated frames'}), (blocks,difference,{'block edges'})])
def test_a_planted_shortcut_is_named(here, f, model, names):
    named,table,_ = found_in(planted(here, f), model)
    assert named==names

def test_a_trace_that_writing_again_removes_is_named(here):
    named,table,_ = found_in(planted(here, stamped, n=24, size=42), stamp)
    assert {'re-encoded'}<=named<={'re-encoded','block edges'}, 'H.264 may leave block edges of its own around chequers'
    assert table.accuracy['clips as they are']>.9

def test_the_length_of_videos_is_named(here):
    named,_,_ = found_in(planted(here, lengths=(24,130)), difference)
    assert named=={'length of the video'}
