"Pretexts: draws, heads against loops, what the encoder's file says, resuming, the shell"
import json,random
import pytest
from fastcore.test import test_close,test_eq
from prp_fastai.all import *

others = {k: v for k,v in pretexts.items() if v.clips!='one'}
tiny = dict(size=24, bs=4, width=.05)

def loaders(folder, name, **kwargs): return ClipsDataLoaders.from_folder(folder, recipe=get_recipe(name, **tiny), num_workers=0, **kwargs)

@pytest.mark.parametrize('name', draws)
def test_draws_stay_in_the_video_and_use_all_of_it(name):
    rates,l,seen = (1,2,4),8,set()
    shortest = span_len(needed_rates(name, rates)[0], l)
    for i in range(300):
        n = shortest if i<20 else random.Random(i).randrange(shortest, 90)
        for frames,label in draws[name](n, rates, l, random.Random(i)):
            assert len(frames)==l and 0<=min(frames) and max(frames)<n
            if i>=20: seen |= {(label, min(frames)==0), (label, max(frames)==n-1)}
    assert {label for label,_ in seen}==set(range(4 if name=='warp' else 3))

@pytest.mark.parametrize('n,s', [(60,1), (64,2)])
def test_clips_in_order_are_half_a_clip_apart_and_every_order_comes(n, s):
    orders = set()
    for i in range(100):
        drawn = draw_order(n, (s,), 8, random.Random(i))
        spans = sorted((min(f), max(f), label) for f,label in drawn)
        assert all(b[0]-a[1]==5*s for a,b in zip(spans, spans[1:])) and [o[2] for o in spans]==[0,1,2]
        orders.add(tuple(label for _,label in drawn))
    assert len(orders)==6

def test_a_pair_has_two_rates_and_views_have_one():
    for i in range(50):
        a,b = draw_pair(80, (1,2,4), 8, random.Random(i))
        assert a[1]!=b[1]
        a,b = draw_views(80, (1,2,4), 8, random.Random(i))
        assert a[1]==b[1]

@pytest.mark.parametrize('name', ['views','pair'])
def test_jitter_changes_the_rate_of_each_clip_within_its_bound_and_the_video(name):
    rates,l,steps,reach = (1,2,4),8,[],set()
    shortest = span_len(needed_rates(name, rates)[0], l)
    for i in range(400):
        n = shortest if i<50 else random.Random(i).randrange(shortest, 90)
        for frames,label in draws[name](n, rates, l, random.Random(i), jitter=.2):
            assert len(frames)==l and frames==sorted(frames) and 0<=frames[0] and frames[-1]<n
            steps.append((frames[-1]-frames[0])/(l-1)/rates[label])
            reach |= {frames[0]==0, frames[-1]==n-1}
    assert reach=={True,False} and min(steps)>=.8-1/(l-1) and max(steps)<=1.2+1/(l-1) and np.std(steps)>.08
    test_eq(draws[name](80, rates, l, random.Random(1), jitter=0.), draws[name](80, rates, l, random.Random(1)))

def test_jitter_of_a_recipe_reaches_the_clips(video_folder):
    plain,dls = (loaders(video_folder, 'contrast', jitter=o) for o in (0.,.5))
    test_eq(dls.recipe.jitter, .5)
    assert not torch.equal(plain.valid.one_batch()[0], dls.valid.one_batch()[0])
    with pytest.raises(ValueError, match="clips='order' has no jitter"): loaders(video_folder, 'order', jitter=.2)
    for o in (-.1, 1.):
        with pytest.raises(ValueError, match='jitter is a share'): loaders(video_folder, 'contrast', jitter=o)

def test_chance_of_contrast_is_that_of_the_batches_that_are_answered(video_folder):
    "Random vectors guess; the last batch is smaller than the others"
    learn = pretext_learner(loaders(video_folder, 'contrast', valid_pct=.5))
    sizes = [len(x) for x,_ in learn.dls.valid]
    assert len(set(sizes))==2, sizes
    by_hand = np.repeat([1/(2*n-1) for n in sizes], sizes).mean()
    test_close(pretext_chance(learn)['contrast'], by_hand, eps=1e-12)
    rng = torch.Generator().manual_seed(0)
    def guessed(n): return Contrast.right(F.normalize(torch.randn(n, 2, 64, generator=rng), dim=-1)).tolist()
    right = np.mean([o for _ in range(300) for n in sizes for o in guessed(n)])
    assert abs(right-by_hand)<.03, (right, by_hand)

@pytest.mark.parametrize('name', others)
def test_every_pretext_trains_is_saved_and_is_evaluated(video_folder, tmp_path, name):
    learn = pretext_learner(loaders(video_folder, name), path=tmp_path)
    weight = next(learn.model.encoder.parameters())
    before = weight.clone()
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1)
    assert not torch.equal(before, weight)
    test_eq(learn.metrics.attrgot('name'), [o for h in learn.recipe.heads for o in (f'{h}_accuracy', f'loss_{h}')])
    assert set(pretext_chance(learn))==set(learn.recipe.heads) and all(0<o<=.5 for o in pretext_chance(learn).values())
    fname = learn.save_encoder(tmp_path/'e.safetensors')
    card = read_card(fname)
    test_eq(Recipe.from_dict(card), learn.recipe)
    test_eq(card['seen'], sorted(video_ids(learn.dls.train_ds.items)))
    assert learn.validate()==learn.validate()
    with pytest.raises(ValueError, match='learned from'): retrieval_table(fname, learn.dls.valid_ds.items, learn.dls.train_ds.items, labels=lambda o: 'a', num_workers=0)

def test_a_total_is_the_weighted_sum_of_its_parts(video_folder):
    learn = pretext_learner(loaders(video_folder, 'relative'), weights=(.3,2.))
    total,*figures = learn.validate()
    test_close(total, .3*figures[1]+2*figures[3], eps=1e-5)
    with pytest.raises(ValueError, match='1 weights for 2 heads'): pretext_learner(loaders(video_folder, 'relative'), weights=(.3,))

def test_contrast_ignores_the_order_of_a_batch_and_the_lengths_of_features():
    head,f = Contrast(12, 2),torch.randn(6, 2, 12)
    z = head(f)
    test_close(z.norm(dim=-1), torch.ones(6, 2), eps=1e-5)
    shuffled = torch.randperm(6)
    test_close(Contrast.loss(z)[shuffled], Contrast.loss(z[shuffled]), eps=1e-5)
    same = F.normalize(torch.randn(6, 1, 12), dim=-1).expand(6, 2, 12)
    test_eq(Contrast.right(same), torch.ones(6))
    test_close(Contrast.loss(torch.ones(6, 2, 12)/12**.5), torch.full((6,), math.log(11)), eps=1e-5)

def test_faster_and_rank_do_not_change_with_a_shift_of_all_scores_of_a_video():
    v,labels = torch.randn(5, 2),torch.tensor([[0,1],[2,1],[3,0],[1,2],[0,3]])
    test_close(Faster.loss(v, labels), Faster.loss(v+torch.randn(5, 1), labels), eps=1e-5)
    test_close(Faster.loss(v, labels), Faster.loss(v.flip(1), labels.flip(1)), eps=1e-6)
    S = torch.randn(5, 2, 4)
    test_close(Rank.loss(S, labels), Rank.loss(S+torch.randn(5, 1, 4), labels), eps=1e-5)
    test_eq(Rank.right(S, labels), Rank.right(S.flip(1), labels.flip(1)))

@pytest.mark.parametrize('head', pretext_heads)
def test_answers_that_are_right_count_as_right_and_have_no_loss(head):
    labels = torch.tensor([[0,1,2],[2,0,1]])[:,:2 if head in ('contrast','faster') else 3]
    sure = dict(classify=F.one_hot(labels, 4)*99., rank=F.one_hot(labels, 4)*99., faster=labels*99.,
                order=F.one_hot(order_index(labels[:,orders]), 6)*99. if labels.shape[1]==3 else None,
                contrast=torch.eye(2)[:,None].expand(2, 2, 2))[head]
    test_eq(pretext_heads[head].right(sure, labels), torch.ones(2))
    assert pretext_heads[head].loss(sure, labels).max()<1e-3
    if head!='contrast': assert pretext_heads[head].right(-sure, labels).max()<1 and pretext_heads[head].loss(-sure, labels).min()>1

def test_order_is_asked_for_all_shuffles():
    "However the clips are shuffled beforehand, loss and answers are the same"
    head,f,labels = Order(12, 3).eval(),torch.randn(6, 3, 12),torch.tensor([[0,1,2],[2,0,1],[1,0,2]]*2)
    with torch.no_grad():
        loss,right = Order.loss(head(f), labels),Order.right(head(f), labels)
        for o in orders:
            test_close(Order.loss(head(f[:,o]), labels[:,o]), loss, eps=1e-5)
            test_close(Order.right(head(f[:,o]), labels[:,o]), right, eps=1e-6)

@pytest.mark.parametrize('head,n', [('contrast',3),('faster',3),('order',2)])
def test_a_head_refuses_clips_that_it_cannot_compare(head, n):
    with pytest.raises(ValueError, match=f'got {n}'): pretext_heads[head](8, n, 4)

def test_one_read_gives_the_frames_that_were_drawn(video_folder):
    path = get_video_files(video_folder)[0]
    several = SeveralClips('pair', (1,2,4), 16, (32,44), seed=5)
    frames,labels = several((path,), split_idx=1)
    drawn = draw_pair(150, (1,2,4), 16, item_rng(path, 5))
    with VideoReader(path) as v: assert torch.equal(torch.cat([v.frames(f, (32,44)) for f,_ in drawn], 1), frames)
    test_eq(labels.tolist(), [label for _,label in drawn])

def test_short_videos_are_left_out_and_named(video_folder, tmp_path, capsys):
    for i,n in enumerate((20,40,64,150,150)): write_video(tmp_path/f'v{i}.mp4', torch.randint(0, 255, (3,n,32,44), dtype=torch.uint8), crf=40)
    def usable(name, **kwargs): return len(ClipsDataLoaders.from_folder(tmp_path, recipe=get_recipe(name, **{**tiny, 'bs':1}, **kwargs), valid_pct=.34, num_workers=0).items)
    test_eq({k: usable(k) for k in ('speed','order','contrast')}, dict(speed=3, order=2, contrast=4)) # Of the training part, one fewer
    assert 'left out' in capsys.readouterr().out

def test_prp_is_told_from_other_pretexts(video_folder):
    with pytest.raises(ValueError, match='prp_learner'): pretext_learner(PRPDataLoaders.from_folder(video_folder, size=24, bs=4, num_workers=0))
    with pytest.raises(ValueError, match="heads must be of 'rate' and 'recon'"): prp_learner(PRPDataLoaders.from_folder(video_folder, size=24, bs=4, num_workers=0), heads=('order',), width=.05)
    with pytest.raises(ValueError, match='heads must be of classify'): pretext_learner(loaders(video_folder, 'speed'), heads=('recon',))

def test_from_the_shell_and_opened_again(video_folder, tmp_path, capsys):
    given = dict(recipe='relative', width=.05, size=24, bs=4, num_workers=0)
    whole = prp_pretrain(str(video_folder), out=str(tmp_path/'whole'), epochs=2, **given)
    said = capsys.readouterr().out
    assert 'faster: ' in said and 'by guessing' in said and f'next: prp-retrieve LABELLED_VIDEOS {tmp_path/"whole"/"encoder.safetensors"}' in said
    assert (tmp_path/'whole'/'results.png').exists() and json.loads((tmp_path/'whole'/'settings.json').read_text())['settings']['clips']=='pair'
    learn = load_run(tmp_path/'whole', get_video_files(video_folder)[:4])
    assert isinstance(learn.model, PretextModel) and learn.recipe.heads==('faster','contrast')
    assert all(torch.equal(a, b) for a,b in zip(learn.model.state_dict().values(), whole.model.state_dict().values()))
    with pytest.raises(ValueError, match='another pretext'): prp_figures(str(video_folder), str(tmp_path/'whole'), out=str(tmp_path/'f'))
