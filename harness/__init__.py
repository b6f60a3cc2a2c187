"""The judge of the Parameter Golf challenge. A run, from top to bottom:

    cli, commands/  `pgolf run submissions/NAME`: one file for each command
    audit/          published record folders, read and never run
    verdict/        evidence -> rules -> decision -> verdict.json, report, export
    run/            submission -> plan -> seeds x stages -> verification, every attempt on record
    runners/        where a contestant runs: docker or local, and the images
    protocol/       what judge and contestant say, in which order, by which clock
    scoring/        numbers -> bits per byte, significance, certificate
    data/           the text: shards, tokenizer, bytes a token, datasets
    base/           files, strict readers, errors, text for people
    edition         every number of the rules

A room imports only rooms below it. Nothing here imports torch or golf: the protocol is all that the two
sides share.
"""
