"""Training logs in the two dialects of the public records, with any seed and score."""

from __future__ import annotations

import math

CLASSIC = """val_bpb:enabled tokenizer_kind=sentencepiece \
tokenizer_path=./data/tokenizers/fineweb_1024_bpe.model
train_loader:dataset:fineweb10B_sp1024 train_shards:80
val_loader:shards pattern=./data/fineweb_val_*.bin tokens:62021632
model_params:17059912
world_size:8 grad_accum_steps:1
train_batch_tokens:524288 train_seq_len:1024 iterations:20000 warmup_steps:20 max_wallclock_seconds:600.000
seed:{seed}
step:0/20000 val_loss:6.9357 val_bpb:4.1077 train_time:0ms step_avg:0.02ms
step:1/20000 train_loss:6.9370 train_time:44ms step_avg:44.10ms
step:13780/20000 val_loss:2.0606 val_bpb:1.2204 train_time:600038ms step_avg:43.54ms
stopping_early: wallclock_cap train_time:600038ms step:13780/20000
Serialized model: 67224983 bytes
Code size: 47642 bytes
Total submission size: 67272625 bytes
Serialized model int8+zlib: 15815847 bytes (payload:17178912 raw_torch:17224025 payload_ratio:3.91x)
Total submission size int8+zlib: 15863489 bytes
final_int8_zlib_roundtrip val_loss:{rough} val_bpb:{short} eval_time:1401ms
final_int8_zlib_roundtrip_exact val_loss:{nats} val_bpb:{bpb}
"""
HYPER = """Hyperparameters:
  max_wallclock_seconds: 600.0
  seed: {seed}
  vocab_size: 8192
  world_size: 8
train_shards: 80
val_tokens: 40540160
model_params:35945671
1/20000 train_loss: 9.0087 train_time: 0.0m tok/s: 8300000
4000/20000 train_loss: 2.9000 train_time: 8.1m tok/s: 6500000
4945/20000 val_loss: 2.9000 val_bpb: 1.1227
stopping_early: wallclock_cap train_time: 588041ms step: 4945/20000
pre-quantization post-ema val_loss:2.80910000 val_bpb:1.08749000 eval_time:7401ms
Serialized model quantized+brotli: 15972031 bytes
Code size (uncompressed): 58367 bytes
Code size (compressed): 15516 bytes
Total submission size quantized+brotli: 15987547 bytes
quantized val_loss:2.85000000 val_bpb:1.10333000 eval_time:10989ms
quantized_sliding_window val_loss:{nats} val_bpb:{bpb} eval_time:83990ms
"""


def classic(seed: int = 1337, bpb: float = 1.22436570) -> str:
    nats = bpb * math.log(2) * 2.4359
    return CLASSIC.format(
        seed=seed, bpb=f"{bpb:.8f}", short=f"{bpb:.4f}", nats=f"{nats:.8f}", rough=f"{nats:.4f}"
    )


def hyper(seed: int = 42, bpb: float = 1.08554) -> str:
    return HYPER.format(seed=seed, bpb=f"{bpb:.8f}", nats=f"{bpb * math.log(2) * 3.7266:.8f}")
