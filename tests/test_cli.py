"The commands, as the shell runs them"
import json,os,re,runpy,signal,subprocess,sys,tempfile,traceback
from pathlib import Path
import numpy as np,pandas as pd,pytest,torch
from prp_fastai.all import *

bin = Path(sys.executable).parent
def run(*args, ok=True, **kwargs):
    "What a command says, in a shell of its own"
    res = subprocess.run([str(bin/args[0]), *map(str, args[1:])], capture_output=True, text=True, **kwargs)
    assert (res.returncode==0)==ok, res.stdout+res.stderr
    return res.stdout+res.stderr

def play(script, args, out):
    "Run a script in this process, its output into the file `out`; the exit code"
    for fd in (1,2): os.dup2(out.fileno(), fd)
    sys.stdout,sys.stderr = (os.fdopen(fd, 'w', buffering=1, closefd=False) for fd in (1,2))
    torch.set_num_threads(1)
    sys.argv,sys.path = [str(script), *map(str, args)],[str(script.parent), *sys.path]
    try: runpy.run_path(str(script), run_name='__main__')
    except SystemExit as e:
        if isinstance(e.code, str): print(e.code, file=sys.stderr)
        return e.code if isinstance(e.code, int) else e.code is not None
    except BaseException:
        traceback.print_exc()
        return 1
    return 0

def forked(name, *args):
    "Exit code of a command or script and what it says, in a copy of this process, which has imported everything"
    with tempfile.TemporaryFile('w+') as out:
        if not (pid := os.fork()):
            code = 1
            signal.alarm(900) # What trains on where it should have refused ends here
            try: code = play(bin/name, args, out)
            finally:
                sys.stdout.flush(); sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0)
        return code,out.read()

def fork(name, *args, ok=True):
    "What a command or script says, by `forked`"
    code,said = forked(name, *args)
    assert (code==0)==ok, said
    return said

def test_pretrain_leaves_what_it_says(video_folder, tmp_path):
    said = run('prp-pretrain', video_folder, '--out', tmp_path/'run', '--width', .05, '--size', 32, '--epochs', 2, '--bs', 4, '--lr', .02, '--by-group', cwd=tmp_path)
    assert re.search(r'rate accuracy 0\.\d{3} after the last epoch; the lengths of the videos alone give 0\.250\n', said) and 'valid_loss_g' in said
    assert 'the lengths of the videos alone give a rate accuracy' not in said
    history = pd.read_csv(tmp_path/'run/history.csv')
    assert len(history)==2 and {'train_loss','valid_loss','valid_rate_accuracy','train_loss_d','valid_loss_g'}<=set(history)
    how = json.loads((tmp_path/'run/settings.json').read_text())
    assert how['settings']['lr']==.02 and how['settings']['seed']==42 and how['packages']['torch'] and 'git_revision' in how
    assert load_encoder(tmp_path/'run/encoder.safetensors')
    assert (tmp_path/'run/last.pth').exists() and (tmp_path/'run/results.png').stat().st_size>1000

def test_pretrain_goes_on_where_it_was_told_to_stop(video_folder, tmp_path):
    small = (video_folder, '--width', .02, '--size', 24, '--bs', 4, '--epochs', 6, '--num-workers', 1)
    said = fork('prp-pretrain', *small, '--out', tmp_path/'whole')
    job = subprocess.Popen([str(bin/'prp-pretrain'), *map(str, small), '--out', str(tmp_path/'broken')], stdout=subprocess.PIPE, text=True)
    for line in job.stdout:
        if line.startswith('epoch 1 '): job.terminate()
    assert job.wait(180)==143 and 1<len(pd.read_csv(tmp_path/'broken/history.csv'))<6
    assert 'resumes at epoch' in fork('prp-pretrain', *small, '--out', tmp_path/'broken', '--resume')
    a,b = (pd.read_csv(tmp_path/o/'history.csv').drop(columns='time') for o in ('whole','broken'))
    assert a.equals(b)
    assert all(torch.equal(x, y) for x,y in zip(*(load_encoder(tmp_path/o/'encoder.safetensors').state_dict().values() for o in ('whole','broken'))))
    assert '--resume needs the same: lr' in fork('prp-pretrain', *small, '--out', tmp_path/'broken', '--resume', '--lr', .5, ok=False)

def test_settings_of_one_run_for_another(video_folder, tmp_path):
    small = (str(video_folder), '--width', .02, '--size', 24, '--bs', 4, '--epochs', 1, '--num-workers', 0)
    fork('prp-pretrain', *small, '--out', tmp_path/'a', '--speed', 'channels_last,fold,bf16', '--accumulate', 8, '--attn', 'none', '--log', 'tensorboard')
    assert list((tmp_path/'a').glob('events.out.*'))
    fork('prp-pretrain', video_folder, '--out', tmp_path/'b', '--config', tmp_path/'a/settings.json', '--lr', .02)
    assert 'kind' in fork('prp-pretrain', *small, '--out', tmp_path/'c', '--log', 'paper', ok=False)
    a,b = (json.loads((tmp_path/o/'settings.json').read_text())['settings'] for o in 'ab')
    assert a['speed']=='channels_last,fold,bf16' and {k for k in a if a[k]!=b[k]}=={'out','lr'} and b['lr']==.02
    (tmp_path/'odd.json').write_text('{"sound": 1}')
    assert 'does not know: sound' in fork('prp-pretrain', video_folder, '--out', tmp_path/'c', '--config', tmp_path/'odd.json', ok=False)
    assert "no speed-up 'warp'" in fork('prp-pretrain', video_folder, '--out', tmp_path/'c', '--speed', 'warp', ok=False)

def test_two_processes_pretrain_as_one_does(video_folder, tmp_path):
    "The first epoch to float noise. Later a step can turn that noise into thousandths, on some processors, and tip one clip of the 8 over"
    small = (str(video_folder), '--width', .02, '--size', 24, '--epochs', 2, '--num-workers', 0)
    fork('prp-pretrain', *small, '--bs', 4, '--out', tmp_path/'one')
    said = run('python', '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', 2, bin/'prp-pretrain', *small, '--bs', 2, '--out', tmp_path/'two', env={**os.environ, 'OMP_NUM_THREADS':'1'})
    assert said.count('videos to train on')==1 and said.count('rate accuracy')>=1
    a,b = (pd.read_csv(tmp_path/o/'history.csv').drop(columns=['epoch','time']) for o in ('one','two'))
    for epoch,(rtol,clips) in enumerate(((1e-3,0),(2e-2,1))):
        for c in a: np.testing.assert_allclose(a[c][epoch], b[c][epoch], rtol=rtol, atol=clips/8 if 'accuracy' in c else 0, err_msg=c)
    assert sorted(o.name for o in (tmp_path/'one').iterdir())==sorted(o.name for o in (tmp_path/'two').iterdir())

def test_machines_fill_a_cache_together(video_folder, tmp_path):
    for k in range(3): fork('prp-cache', video_folder, tmp_path/'cache', '--size', 24, '--shard', f'{k}/3', '--manifest', tmp_path/f'{k}.csv')
    assert len(list((tmp_path/'cache').rglob('*.npy')))==12
    assert '12 of 12 videos' in fork('prp-cache', video_folder, tmp_path/'cache', '--size', 24, '--yuv')
    assert "a shard is k/n" in fork('prp-cache', video_folder, tmp_path/'cache', '--shard', '3/3', ok=False)

def test_machines_scan_together(video_folder, tmp_path):
    for k in range(3): assert '4 videos' in fork('prp-scan', video_folder, '--shard', f'{k}/3', '--manifest', tmp_path/f'{k}.csv')
    fork('prp-scan', video_folder, '--manifest', tmp_path/'whole.csv')
    parts = pd.concat([pd.read_csv(tmp_path/f'{k}.csv') for k in range(3)], ignore_index=True)
    assert parts.sort_values('path', ignore_index=True).equals(pd.read_csv(tmp_path/'whole.csv'))

def test_pretrain_from_list_and_table(video_folder, tmp_path):
    names = [o.name for o in get_video_files(video_folder)]
    (tmp_path/'train.txt').write_text('\n'.join(names[:8])); (tmp_path/'valid.txt').write_text('\n'.join(names[8:]))
    (tmp_path/'train.csv').write_text('\n'.join(['path', *names[:8]]))
    small = ('--root', video_folder, '--valid', tmp_path/'valid.txt', '--width', .05, '--size', 32, '--epochs', 1, '--bs', 4, '--encoder', 'r3d', '--heads', 'recon')
    for o in ('txt','csv'): assert '8 videos to train on, 4 to validate on' in fork('prp-pretrain', tmp_path/f'train.{o}', '--out', tmp_path/o, *small)

def test_provenance_without_git(monkeypatch):
    assert provenance({})['git_revision']
    monkeypatch.setenv('PATH', '')
    assert provenance({})['git_revision'] is None

def test_help_has_every_setting_of_the_paper():
    said = fork('prp-pretrain', '--help')
    for o in ('encoder','width','heads','rates','clip-len','recon-rate','size','lambda-d','lambda-g','epochs','lr','mom','wd','schedule','bs','seed'): assert f'--{o}' in said, o

@pytest.mark.parametrize('args,says', [(['nowhere'], 'no such folder or list'), (['sample','--rates','1,3'], 'powers of two'), (['sample','--encoder','resnet'], 'no encoder'),
                                       (['sample','--schedule','cosine'], 'schedule must be')])
def test_bad_settings_are_one_sentence_before_anything_runs(tmp_path, args, says):
    said = fork('prp-pretrain', *args, '--out', tmp_path/'run', ok=False)
    assert says in said and not (tmp_path/'run/history.csv').exists()

def test_demo_says_what_it_told_and_where_the_pictures_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = fork('prp-demo', 'pictures', '--epochs', 1)
    for o in ('60 of 60 videos are read from the cache', '1 passes over 45 videos', 'On 15 videos of actors it has not seen', '(chance: 0.250)', 'the mean colour of each clip', 'random weights'): assert o in said, o
    for o in ('rates','results','activations'): assert f'pictures/{o}.png' in said and (tmp_path/f'pictures/{o}.png').stat().st_size>1000
    how = json.loads((tmp_path/'pictures/settings.json').read_text())['settings']
    assert how['epochs']==1 and how['cache'] is None

def labelled_folder(to, video_folder):
    "The twelve videos as two classes of two groups"
    for i,o in enumerate(get_video_files(video_folder)):
        c = 'ab'[i//6]
        (to/c).mkdir(parents=True, exist_ok=True)
        (to/c/f'v_{c}_g{i//3:02}_c{i%3:02}.mp4').write_bytes(o.read_bytes())
    return to

def test_finetune_resume_test_and_probe(video_folder, tmp_path, capsys):
    videos,run,encoder = labelled_folder(tmp_path/'videos [1]', video_folder),tmp_path/'run',str(tmp_path/'e.safetensors')
    prp_learner(PRPDataLoaders.from_folder(videos, rates=(1,2), size=24, bs=4, num_workers=0), 'r3d', width=.05, path=tmp_path).save_encoder(encoder)
    small = dict(encoder=encoder, out=str(run), valid_pct=.25, baseline=True, bs=2, num_workers=0)
    table = prp_finetune(str(videos), epochs=1, **small)
    said = capsys.readouterr().out
    assert 'pretrained weights, split 1' in said and 'random weights, split 1' in said and 'valid_loss' in said
    how = json.loads((run/'settings.json').read_text())
    assert how['settings']['size']==24 and how['settings']['seed']==42 and how['packages']['torch']
    kept = pd.read_csv(run/'test-10-logits.csv', index_col=[0,1])
    assert list(kept.index)==list(table.index)==[('pretrained','split 1'),('random','split 1')] and np.allclose(kept.accuracy, table.accuracy)
    shown = (run/'test-10-logits.md').read_text()
    assert '|pretrained|split 1|' in shown and 'seed 42' in shown
    prp_finetune(str(videos), epochs=2, resume=True, **small)
    for o in ('pretrained','random'):
        assert pd.read_csv(run/f'{o}/split1/history.csv').epoch.tolist()==[0,1] and (run/f'{o}/split1/per_class-10-logits.csv').exists()
    with pytest.raises(ValueError, match='was made with other settings, --resume needs the same: lr'): prp_finetune(str(videos), epochs=2, resume=True, lr=.5, **small)
    with pytest.raises(FileNotFoundError, match='holds no run of prp-finetune'): prp_test(str(tmp_path))
    shell = run_here('prp_test', run, '--clips', 3, '--avg', 'prob')
    assert 'pretrained split 1' in shell and (run/'test-3-prob.csv').exists()
    with pytest.raises(ValueError, match='allow_seen=True'): prp_probe(str(videos), encoder, out=str(tmp_path/'probed'), clips=2, num_workers=0)
    probes = prp_probe(str(videos), encoder, out=str(tmp_path/'probed'), clips=2, num_workers=0, allow_seen=True)
    assert list(probes)==['linear','knn'] and list(probes.index)==[('split 1','pretrained'),('split 1','random')]
    assert 'seed 42' in (tmp_path/'probed/probes.md').read_text()

def run_here(name, *args):
    "What a command says, run by a script such as pip writes for it"
    with tempfile.TemporaryDirectory() as tmp:
        script = Path(tmp)/'run.py'
        script.write_text(f"import sys\nfrom prp_fastai.all import {name}\nif __name__=='__main__': sys.exit({name}())")
        res = subprocess.run([sys.executable, str(script), *map(str, args)], capture_output=True, text=True)
    assert res.returncode==0, res.stdout+res.stderr
    return res.stdout

@pytest.mark.parametrize('kwargs,says', [(dict(source='nowhere'), 'no such folder or table'), (dict(avg='mean'), "avg must be 'logits' or 'prob'"),
                                         (dict(splits='4'), 'there is no split 4'), (dict(arch='resnet'), 'no encoder')])
def test_bad_settings_of_finetune(tmp_path, kwargs, says):
    with pytest.raises((ValueError,FileNotFoundError), match=says): prp_finetune(**{'source':'sample', 'out':str(tmp_path/'run'), **kwargs})

def test_labelled_tables(tmp_path, video_folder):
    videos = labelled_folder(tmp_path/'videos', video_folder)
    files = get_video_files(videos)
    pd.DataFrame(dict(path=[str(o.relative_to(videos)) for o in files], label=[o.parent.name for o in files])).to_csv(videos/'labels.csv', index=False)
    table,folder = find_labelled(str(videos/'labels.csv')),find_labelled(str(videos))
    assert table.equals(folder) and table.is_test.sum()==3 and not set(table.group[table.is_test])&set(table.group[~table.is_test])
    pd.DataFrame(dict(name=['a'])).to_csv(tmp_path/'bad.csv')
    with pytest.raises(ValueError, match='needs columns path and label'): find_labelled(str(tmp_path/'bad.csv'))

def test_probe_and_retrieval_read_what_training_reads(video_folder, tmp_path, capsys, monkeypatch):
    "From a cache, or by the manifest of a scan, they give what the files give; a cache of another size is refused"
    videos,encoder = labelled_folder(tmp_path/'videos', video_folder),str(tmp_path/'e.safetensors')
    prp_learner(PRPDataLoaders.from_files(get_video_files(sample_videos())[:6], rates=(1,2), size=24, bs=2, num_workers=0), 'r3d', width=.05, path=tmp_path).save_encoder(encoder)
    prp_scan(str(videos), manifest=str(tmp_path/'m.csv'))
    prp_cache(str(videos), str(tmp_path/'cache'), size=24, manifest=str(tmp_path/'m.csv'))
    df = find_labelled(str(videos))
    capsys.readouterr()
    called = []
    for o in ('_learn','frames'):
        def counted(self, *args, o=o, f=getattr(VideoReader, o), **kwargs): called.append(o); return f(self, *args, **kwargs)
        monkeypatch.setattr(VideoReader, o, counted)
    for how in (dict(manifest=str(tmp_path/'m.csv')), dict(cache=str(tmp_path/'cache'))):
        called.clear()
        probed = prp_probe(str(videos), encoder, out=str(tmp_path/'probed'), clips=2, num_workers=0, **how)
        assert called.count('_learn')==0 and called.count('frames')==(0 if 'cache' in how else 24)
        called.clear()
        found = prp_retrieve(str(videos), encoder, out=str(tmp_path/'found'), shown=1, num_workers=0, **how)
        assert called.count('_learn')<=6 and called.count('frames')<=6+(0 if 'cache' in how else 24) # A picture of six frames
        assert ('12 of 12 videos are read from the cache' in capsys.readouterr().out)==('cache' in how)
        pd.testing.assert_frame_equal(probed.droplevel(0), probe_table(encoder, df, clips=2, num_workers=0), check_names=False)
        pd.testing.assert_frame_equal(found, retrieval_table(encoder, df[~df.is_test], df[df.is_test], num_workers=0)[0])
    other = labelled_folder(tmp_path/'others', video_folder)
    prp_retrieve(str(videos), encoder, queries=str(other), out=str(tmp_path/'found'), shown=1, num_workers=0, manifest=str(tmp_path/'m.csv'))
    how = json.loads((tmp_path/'found/settings.json').read_text())['settings']
    assert how['queries']==str(other) and how['gallery_videos']+how['query_videos']==12
    assert pd.read_csv(tmp_path/'m.csv').path.str.startswith(str(other)).sum()==how['query_videos']
    with pytest.raises(FileNotFoundError, match='none of these 12 videos'): prp_probe(str(videos), encoder, out=str(tmp_path/'p2'), size=24, num_workers=0, cache=str(tmp_path/'nowhere'))
