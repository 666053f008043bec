"Twins and the benchmark that asks for them: what a twin shares, what every row has to satisfy, errors, the command, the script, the rows in the repository"
from pathlib import Path
import pytest
from fastcore.test import test_close,test_eq
from prp_fastai.all import *
from test_cli import fork

root,actions = Path(__file__).resolve().parent.parent,['Kick','Walk','Backflip']
size = dict(size=56, num_workers=0, clips=2)

@pytest.fixture(scope='module')
def mocap3(tmp_path_factory):
    "Three actions of 5 groups of 2 clips, one group of each to test on, and twins"
    return render_set(tmp_path_factory.mktemp('rendered')/'mocap3', per_class=10, per_group=2, n=24, size=(48,64), n_workers=1, twins=True, classes=actions)

@pytest.fixture(scope='module')
def df(mocap3): return read_ucf101(mocap3, 1)

def frames(path):
    with VideoReader(path) as v: return v.frames(range(len(v))).as_subclass(Tensor).float()/255

def test_a_twin_has_the_scene_of_its_video_and_another_action(mocap3, df):
    videos = df.path[df.is_test].tolist()
    twins = find_twins(mocap3, videos)
    pictures = [frames(o).mean(1) for o in videos]
    for i,twin in enumerate(twins):
        assert parent_label(twin) in actions and parent_label(twin)!=parent_label(Path(videos[i]))
        test_eq(len(frames(twin)[0]), len(frames(videos[i])[0]))
        far = [(frames(twin).mean(1)-o).abs().mean().item() for o in pictures]
        assert video_group(videos[int(np.argmin(far))])==video_group(videos[i])
        assert (frames(twin)-frames(videos[i])).abs().max()>.2

def test_a_twin_that_is_gone_is_rendered_alike_and_others_stay(mocap3, df):
    gone,kept = find_twins(mocap3, df.path[df.is_test])[:2]
    before,stamp = gone.read_bytes(),kept.stat().st_mtime
    gone.unlink()
    render_set(mocap3, per_class=10, per_group=2, n=24, size=(48,64), n_workers=1, twins=True, classes=actions)
    test_eq(gone.read_bytes(), before)
    test_eq(kept.stat().st_mtime, stamp)

def test_readers_of_the_dataset_do_not_see_twins(df):
    test_eq((len(df), df.is_test.sum()), (30, 6))
    assert not df.path.str.contains('twin').any()

def table(net, path, **kwargs): return motion_benchmark(net, path, baseline=False, **{**size, **kwargs})[0].loc['pretrained']

def test_appearance_alone_finds_the_twin(mocap3):
    row = table(MeanFrame(), mocap3)
    test_eq((row['twin first'], row['top1 among twins']), (100, 0))

@pytest.mark.parametrize('make', [MeanChange, lambda: create_encoder('c3d', 1/16), lambda: create_encoder('r3d_diff', 1/16)])
def test_the_numbers_agree_with_the_neighbours(make, mocap3):
    row,found = motion_benchmark(make(), mocap3, baseline=False, **size)
    row,found = row.loc['pretrained'],found['pretrained']
    assert row['top1']<=row['top5'] and row['top1 among twins']+row['twin first']<=100
    own = [video_group(found.queries[q]).removeprefix('v_') in found.files[q][0].stem and 'twin_of' in found.files[q][0].stem for q in range(len(found))]
    test_close(row['twin first'], 100*np.mean(own))
    test_eq((len(found), len(found.index), row.videos, row.twins), (6, 24+6, 30, 6))
    test_close(row['top1 among twins'], 100*found.top_k((1,))[1])

def test_features_that_know_the_action_are_not_fooled(mocap3, df):
    "An encoder that is told the label of each video, in the order in which videos come"
    class Told(nn.Module):
        num_features = 3
        def __init__(self):
            super().__init__()
            twins = find_twins(mocap3, df.path[df.is_test])
            self.labels = iter([o for o in [*df.label, *map(parent_label, twins)] for _ in range(2)])
        def forward(self, x):
            if x.shape[0]==1 and not x.any(): return x.new_zeros(1, 3, 1, 1, 1)
            return tensor([[float(o==a) for a in actions] for o in itertools.islice(self.labels, len(x))])[...,None,None,None]
        def __deepcopy__(self, memo): return self
    row = table(Told(), mocap3)
    test_eq([row[o] for o in ('top1','top5','linear probe','top1 among twins','twin first')], [100,100,100,100,0])

def test_beside_random_weights(mocap3):
    set_seed(0)
    both = motion_benchmark(create_encoder('c3d', 1/16), mocap3, seed=1, **size)[0]
    test_eq(list(both.index), ['pretrained','random'])
    test_eq(both.parameters.nunique(), 1)
    other = motion_benchmark(create_encoder('c3d', 1/16), mocap3, seed=1, **size)[0]
    test_eq(other.loc['random'].tolist(), both.loc['random'].tolist())

def test_test_videos_that_were_learned_from_are_refused(mocap3, df):
    net = create_encoder('c3d', 1/16)
    net.card = dict(seen=video_ids(df.path[df.is_test][:2].tolist()), size=56)
    with pytest.raises(ValueError, match='2 of the 6 videos'): table(net, mocap3)
    with pytest.warns(UserWarning, match='2 of the 6 videos'): table(net, mocap3, allow_seen=True)

def test_other_pixels_than_the_cards_are_refused(mocap3):
    net = create_encoder('c3d', 1/16)
    net.card = dict(size=64)
    with pytest.raises(ValueError, match='size 64, not 56'): table(net, mocap3)

def test_a_missing_twin_is_named_with_the_command(mocap3, df, tmp_path):
    with pytest.raises(FileNotFoundError, match='6 of 6 .*v_.*_g01_c01.mp4.*--twins'): find_twins(tmp_path, df.path[df.is_test])
    with pytest.raises(ValueError, match='another action than Kick'): render_set(tmp_path, classes=['Kick'], twins=True)

def test_cost_is_that_of_the_arithmetic():
    "C3D's second convolution halves no side: 27 products per output"
    net = nn.Sequential(nn.Conv3d(3, 4, 3, padding=1, bias=False), nn.Conv3d(4, 8, (1,3,3), stride=(1,2,2), padding=(0,1,1)))
    cost = clip_cost(net, 8, 16)
    test_close(cost['GFLOP'], 2*(27*3*4*8*16*16 + 9*4*8*8*8*8)/1e9, eps=1e-12)
    test_close(cost['parameters'], (27*3*4 + 9*4*8 + 8)/1e6, eps=1e-12)

def test_the_command_writes_a_row_and_says_when_it_replaces_one(mocap3, tmp_path, capsys):
    net,file,out = create_encoder('c3d', 1/16),tmp_path/'small.safetensors',tmp_path/'kept/board.csv'
    save_tensors(net, dict(arch='c3d', width=1/16, size=56, clip_len=16, pixels='RGB in 0..1', seen=[]), file)
    def run(**kwargs): return prp_benchmark(str(file), str(mocap3), str(out), clips=2, num_workers=0, **kwargs)
    run(name='one', trained='not at all')
    board = run(name='two')
    test_eq((sorted(board.name), set(board.arch), set(board['size'])), (['one','two'], {'c3d'}, {56}))
    assert 'replaced' not in capsys.readouterr().out
    run(name='one')
    assert "'one' is replaced" in capsys.readouterr().out
    again = pd.read_csv(out)
    test_eq(len(again), 2)
    assert again['top1 among twins'].is_monotonic_decreasing and again.trained.isna().all()

def test_the_command_takes_an_image_network_by_name(mocap3, tmp_path):
    pytest.importorskip('timm')
    set_seed(0)
    net = foreign_encoder('timm/resnet10t', size=32, blocks=0)
    torch.save(net.net.image.state_dict(), tmp_path/'weights.pth')
    def run(**kwargs): return prp_benchmark('timm/resnet10t', str(mocap3), str(tmp_path/'board.csv'), clips=1, size=32, num_workers=0, **kwargs).iloc[0]
    row = run(weights=str(tmp_path/'weights.pth'))
    test_eq((row['name'], row.arch), ('resnet10t','timm/resnet10t'))
    expected = motion_benchmark(net, mocap3, clips=1, baseline=False, num_workers=0)[0].loc['pretrained']
    for o in ('top1','linear probe','GFLOP'): test_close(row[o], round(expected[o], 3), eps=1e-3)
    with pytest.raises(ValueError, match='not for c3d'): prp_benchmark('c3d', str(mocap3), weights='published')

def test_the_script_adds_the_rows_that_nothing_has_trained(mocap3, tmp_path, monkeypatch):
    out = tmp_path/'board.csv'
    monkeypatch.chdir(tmp_path)
    def run():
        fork(root/'experiments/motion.py', mocap3, '--out', out, '--width', '.0625', '--num-workers', '0')
        return pd.read_csv(out)
    first = run()
    test_eq(len(first), 6)
    test_eq(first.set_index('name').loc['mean frame','twin first'], 100)
    assert run().equals(first)

def test_rows_in_the_repository_are_of_the_whole_benchmark():
    board = pd.read_csv(root/'experiments/results/mocap15_drawn/leaderboard.csv')
    assert board.name.is_unique and board['top1 among twins'].is_monotonic_decreasing
    test_eq((set(board.videos), set(board.twins)), ({1200}, {240}))
