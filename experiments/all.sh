#!/bin/bash
# All studies, in the order of evidence per second: the first commands give one seed of most claims, later ones add seeds and models.
#
#     MODELS=FOLDER DATA=FOLDER bash experiments/all.sh
#
# MODELS has multilingual-e5-small as e5-small, and mpnet-base; DATA has conll2003, kaznerd and rotten_tomatoes. The comment after a command
# is its estimated processor seconds on one thread, and the sum so far. Every study goes on where it was stopped, so this script may be ended
# and started again; what it has written in experiments/ is to be committed.
set -e
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=137438953472 TOKENIZERS_PARALLELISM=false

D=$DATA; E5="--model $MODELS/e5-small --clock processor"; MP="--model $MODELS/mpnet-base --clock processor"; ML="--model demo --clock processor"
S="python experiments/study.py"; N=experiments/static_ner; T=experiments/tokenizer; F=experiments/few_shot; R=experiments/static_sentiment
CO="--dataset $D/conll2003"; KA="--dataset $D/kaznerd"; RT="--dataset $D/rotten_tomatoes"
PC="--published experiments/published/static_conll2003.csv"; PK="--published experiments/published/static_kaznerd.csv"; PS="--published experiments/published/static_sentiment.csv"
# 320 s, Σ 0.1 h: times of the ten, no cache (bottom-up against top-down, eq. 5)
$S compare $N/conll2003_time.toml $E5 $CO $PC
# 1,620 s, Σ 0.5 h: static depths, seed 0
$S compare $N/conll2003_e5-small.toml $E5 $CO $PC --seeds 0
# 1,120 s, Σ 0.8 h: the same on Kazakh
$S compare $N/kaznerd_e5-small.toml $E5 $KA $PK --seeds 0
# 830 s, Σ 1.1 h: Kazakh with an English vocabulary
$S compare $T/kaznerd_minilm.toml $ML $KA --seeds 0
# 580 s, Σ 1.2 h: the same model in English
$S compare $T/conll2003_minilm.toml $ML $CO --seeds 0
# 1,060 s, Σ 1.5 h: sentiment, seed 0
$S compare $R/rotten_tomatoes_e5-small.toml $E5 $RT $PS --seeds 0
# 770 s, Σ 1.8 h: few-shot
$S compare $F/rotten_tomatoes.toml --per-class 16 --name rotten_tomatoes_16 $E5 $RT --seeds 0 1 2
# 690 s, Σ 1.9 h
$S compare $F/conll2003.toml --per-class 16 --name conll2003_16 $E5 $CO --seeds 0 1 2
# 3,400 s, Σ 3.2 h: adaptive policies and both controls
$S compare $N/conll2003_e5-small.toml $E5 $CO $PC --seeds 0 --scenarios bottom-up:0 autofreeze validation egeria random-prefix budget:0.5 --short-full
# 3,240 s, Σ 4.1 h: static depths, seeds 1 and 2
$S compare $N/conll2003_e5-small.toml $E5 $CO $PC --seeds 1 2
# 2,240 s, Σ 4.7 h
$S compare $N/kaznerd_e5-small.toml $E5 $KA $PK --seeds 1 2
# 1,660 s, Σ 5.1 h
$S compare $T/kaznerd_minilm.toml $ML $KA --seeds 1 2
# 1,160 s, Σ 5.5 h
$S compare $T/conll2003_minilm.toml $ML $CO --seeds 1 2
# 3,300 s, Σ 6.4 h: seeds 1 and 2, and the shorter schedules of all three
$S compare $R/rotten_tomatoes_e5-small.toml $E5 $RT $PS --seeds 0 1 2 --short-full
# 1,740 s, Σ 6.9 h
$S compare $F/rotten_tomatoes.toml --per-class 64 --name rotten_tomatoes_64 $E5 $RT --seeds 0 1 2
# 1,800 s, Σ 7.4 h
$S compare $F/conll2003.toml --per-class 64 --name conll2003_64 $E5 $CO --seeds 0 1 2
# 1,320 s, Σ 8.3 h: 13 depths, one seed
$S search experiments/depth_search/conll2003_e5-small.toml $E5 $CO
# 150 s, Σ 8.3 h: trains only what the whole search pruned; tests again
$S search experiments/depth_search/conll2003_e5-small.toml $E5 $CO --quick --name conll2003_quick --start-from experiments/depth_search/conll2003_e5-small.jsonl
# 1,320 s, Σ 8.7 h
$S search experiments/depth_search/kaznerd_e5-small.toml $E5 $KA
# 150 s, Σ 8.7 h
$S search experiments/depth_search/kaznerd_e5-small.toml $E5 $KA --quick --name kaznerd_quick --start-from experiments/depth_search/kaznerd_e5-small.jsonl
# 1,580 s, Σ 9.2 h: the study's shape, one seed
$S compare $N/conll2003_mpnet-base.toml $MP $CO $PC
# 1,270 s, Σ 9.5 h
$S compare $R/rotten_tomatoes_mpnet-base.toml $MP $RT $PS
# 6,400 s, Σ 11.3 h
$S compare $N/conll2003_e5-small.toml $E5 $CO $PC --seeds 1 2 --scenarios bottom-up:0 autofreeze validation egeria random-prefix budget:0.5 --short-full
# 1,660 s, Σ 11.8 h: quality from the top
$S compare $N/conll2003_e5-small.toml $E5 $CO $PC --seeds 0 --scenarios top-down:3,embeddings=true top-down:6,embeddings=true top-down:9,embeddings=true top-down:12,embeddings=true
# 5 s, Σ 11.8 h
python experiments/long/prepare.py --dataset $D/conll2003 --model $MODELS/e5-small --output runs/documents
# 700 s, Σ 12.0 h: whole documents in pieces
$S compare experiments/long/conll2003.toml $E5 --dataset runs/documents/128 --batch-size 4 --name conll2003_128
# 850 s, Σ 12.2 h
$S compare experiments/long/conll2003.toml $E5 --dataset runs/documents/512 --max-length 512 --batch-size 1 --name conll2003_512
# 700 s, Σ 12.4 h
$S compare experiments/long/conll2003.toml $E5 --dataset runs/documents/sentences --name conll2003_sentences
# 1,100 s, Σ 12.7 h
$S compare $F/rotten_tomatoes.toml --per-class 32 --name rotten_tomatoes_32 $E5 $RT --seeds 0 1 2
# 1,050 s, Σ 13.0 h
$S compare $F/conll2003.toml --per-class 32 --name conll2003_32 $E5 $CO --seeds 0 1 2
# 600 s, Σ 13.2 h
$S compare $F/rotten_tomatoes.toml --per-class 8 --name rotten_tomatoes_8 $E5 $RT --seeds 0 1 2
# 500 s, Σ 13.3 h
$S compare $F/conll2003.toml --per-class 8 --name conll2003_8 $E5 $CO --seeds 0 1 2
# 2,400 s, Σ 14.0 h: the study's shape and vocabulary on Kazakh
$S compare $T/kaznerd_mpnet-base.toml $MP $KA
# 5 s, Σ 14.0 h: last quarter, rare classes, tokenizer (any time)
python experiments/relative.py $N/conll2003_e5-small.jsonl $N/kaznerd_e5-small.jsonl $T/*.jsonl $R/*.jsonl
# 2,700 s, Σ 14.8 h: sequences of tasks
Q="python experiments/transfer/sequence.py"
$Q $E5 --ner $D/conll2003 $D/kaznerd --limits 750 500 --test-limit 500 --policies bottom-up:0 bottom-up:3 bottom-up:6 bottom-up:9 bottom-up:12
# 1,500 s, Σ 15.2 h
$Q $ML --halves $D/rotten_tomatoes --limits 500 500 --policies bottom-up:0 bottom-up:2 bottom-up:4 bottom-up:6 top-down:3
# 1,500 s, Σ 15.6 h: data sieving, alone and with freezing, beside a blind sieve and shorter schedules
$S compare experiments/sieve/conll2003_minilm.toml $ML $CO --short-full
$S compare experiments/sieve/rotten_tomatoes_minilm.toml $ML $RT --short-full
# 1,200 s, Σ 15.9 h: going on, freezing or stopping, beside stopping alone and shorter schedules
$S compare experiments/adaptive/runtime_choice.toml $ML $CO --short-full
python experiments/early_stopping.py experiments/adaptive/runtime_choice.jsonl
# 2,100 s, Σ 16.5 h: masks below a unit
$S compare experiments/partial/rotten_tomatoes_minilm.toml $ML $RT
# 4,200 s, Σ 17.7 h: learning rates by block
$S compare experiments/learning_rates/conll2003_decay.toml $ML $CO
for SEED in 0 1 2; do
    $S search experiments/learning_rates/conll2003_depths.toml $ML $CO --seeds $SEED --name conll2003_depths_$SEED
    $S search experiments/learning_rates/conll2003_rates.toml $ML $CO --seeds $SEED --name conll2003_rates_$SEED
done
# 3,000 s, Σ 18.5 h: published policies on text classification
$S compare experiments/adaptive/rotten_tomatoes_e5-small.toml $E5 $RT
