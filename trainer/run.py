"""One job from its folder to its result: load, build, train, evaluate, export, verify, report."""

from __future__ import annotations

import shutil
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from trainer.auto import Workload, resolve, resolve_max_length
from trainer.engine.checkpoints import verified_checkpoint
from trainer.engine.data import Prepared, TokenizedRow, prepare, tokenize_rows
from trainer.engine.dtype import DtypeChoice, choose_dtype
from trainer.engine.environment import describe
from trainer.engine.evaluate import score_rows, subset
from trainer.engine.export import Verification, export_adapter, verify_export
from trainer.engine.models import add_lora, context_length, device, hidden_size, load_config, load_model, load_tokenizer
from trainer.engine.samples import Sample, make_samples
from trainer.engine.sft import INCOMING_FOLDER, SupervisedTrainer, TrainingParts, evaluation_event
from trainer.engine.template import ChatTemplate
from trainer.errors import Stopped, TrainerError, as_trainer_error
from trainer.events import Configured, Error, EventSink
from trainer.events import Warning as WarningEvent
from trainer.methods.base import Resolved
from trainer.phases import Phases
from trainer.progress import Progress
from trainer.report.card import model_card
from trainer.report.model import DataSummary, Report
from trainer.report.write import write_report
from trainer.result import (
    ADAPTER_FOLDER,
    OUTPUT_FOLDER,
    RESULT_CSV,
    ExitCode,
    Manifest,
    entries_of,
    sha256_of,
    write_manifest,
)
from trainer.rows import ChatRow, read_rows
from trainer.spec import DataFile, JobSpec
from trainer.statistics import RowScore, compare
from trainer.stop import StopFlag

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedConfig

SHOWN_LINES = 20


def run(workdir: Path, stop: StopFlag) -> ExitCode:
    """Run the job in `workdir`; every way to fail is one `error` event and an exit code, never only a traceback."""
    sink = EventSink(workdir)
    try:
        _Job(workdir, sink, stop).run()
    except Stopped:
        return ExitCode.STOPPED
    except Exception as error:  # noqa: BLE001 - the last line of defence: a fault becomes an event
        traceback.print_exc()
        known = as_trainer_error(error)
        sink.emit(Error(code=known.code, message=known.message, param=known.param))
        return known.exit_code
    finally:
        sink.close()
    return ExitCode.DONE


@dataclass(frozen=True)
class _Split:
    """One data file: its rows as read, and as prepared for the model."""

    file: DataFile
    chat: list[ChatRow]
    prepared: Prepared

    def summary(self) -> DataSummary:
        """Return what the report says about the file."""
        return DataSummary(
            filename=self.file.filename,
            sha256=self.file.sha256,
            rows=len(self.chat),
            used=len(self.prepared.rows),
            tokens=self.prepared.tokens,
            trained_tokens=self.prepared.trained_tokens,
            cut_lines=self.prepared.cut[:SHOWN_LINES],
            cut=len(self.prepared.cut),
            dropped_lines=self.prepared.dropped[:SHOWN_LINES],
            dropped=len(self.prepared.dropped),
        )


class _Job:
    """The state that the steps of a run hand on."""

    def __init__(self, workdir: Path, sink: EventSink, stop: StopFlag) -> None:
        self.workdir = workdir
        self.base = workdir / "base"
        self.sink = sink
        self.stop = stop
        self.phases = Phases(sink, stop)
        self.warnings: list[str] = []

    def run(self) -> None:
        """Go through the whole job."""
        self.spec = _read_spec(self.workdir)
        self._clear_leftovers()
        with self.phases.enter("tokenizing", "Reading the rows and applying the chat template"):
            config, max_length = self._load_data()
        with self.phases.enter("loading", f"Loading {self.spec.base.id}"):
            dtype, resolved, model = self._load_model(config, max_length)
        trainer = self._build(model, resolved)
        with self.phases.enter("evaluating_base", "Measuring the base model"):
            base_scores = self._score_base(model, resolved)
        with self.phases.enter("training", f"Training for {resolved.total_steps} steps"):
            trainer.fit(self.workdir / "checkpoint" if self.spec.resume else None)
        with self.phases.enter("evaluating", "Measuring the tuned model and answering held-out prompts"):
            tuned_scores = self._score_tuned(trainer, model)
            samples = self._samples(model, config)
        with self.phases.enter("exporting", "Writing the adapter"):
            self._export(model, resolved)
        with self.phases.enter("verifying", "Reloading the adapter and comparing its logits with the trained model's"):
            verification = self._verify(model, dtype)
        with self.phases.enter("reporting", "Writing the report"):
            report = self._report(resolved, dtype, trainer.progress, base_scores, tuned_scores, samples, verification)
            write_report(self.workdir, report)
        self._finish(trainer.progress, report)

    def _clear_leftovers(self) -> None:
        """Remove what an earlier, interrupted run in the same folder may have left."""
        for name in (OUTPUT_FOLDER, INCOMING_FOLDER):
            shutil.rmtree(self.workdir / name, ignore_errors=True)

    def _load_data(self) -> tuple[PreTrainedConfig, int]:
        config = load_config(self.base)
        self.template = ChatTemplate(load_tokenizer(self.base))
        if self.template.end_of_turn is None:
            self._warn("The chat template has no end-of-turn token: the tuned model may not know when to stop.")
        chat, tokenized = self._read(self.spec.training, "training_file")
        longest = max((len(row.input_ids) for row in tokenized), default=0)
        hyperparameters = self.spec.method.hyperparameters
        max_length = resolve_max_length(hyperparameters, longest, context_length(config))
        self.training = _Split(self.spec.training, chat, prepare(tokenized, max_length))
        self.validation = None
        if self.spec.validation:
            held_out, held_out_tokens = self._read(self.spec.validation, "validation_file")
            self.validation = _Split(self.spec.validation, held_out, prepare(held_out_tokens, max_length))
        self._tell_losses(max_length)
        return config, max_length

    def _read(self, file: DataFile, param: str) -> tuple[list[ChatRow], list[TokenizedRow]]:
        path = self.workdir / file.path
        rows = read_rows(path, filename=file.filename, param=param)
        if sha256_of(path) != file.sha256:
            raise TrainerError(
                "data_corrupted",
                f"{file.filename} does not have the SHA-256 that the job states; upload it again.",
                param=param,
                exit_code=ExitCode.FAULT,
            )
        return rows, tokenize_rows(self.template, rows)

    def _tell_losses(self, max_length: int) -> None:
        for split in filter(None, (self.training, self.validation)):
            prepared, name = split.prepared, split.file.filename
            if prepared.cut:
                lines = _lines(prepared.cut)
                self._warn(f"{name}: {len(prepared.cut)} row(s) were cut to {max_length} tokens, at {lines}.")
            if prepared.dropped:
                lines = _lines(prepared.dropped)
                self._warn(f"{name}: {len(prepared.dropped)} row(s) have no token to train on, at {lines}.")
        if not self.training.prepared.rows:
            raise TrainerError(
                "no_trainable_rows",
                f"{self.training.file.filename} has no row with an assistant's token to train on within {max_length} "
                "tokens: check the weights of the assistant's messages and max_length.",
                param="training_file",
            )
        if self.validation is not None and not self.validation.prepared.rows:
            self._warn("The validation file has no row to measure on: the report has training numbers only.")
            self.validation = None

    def _load_model(self, config: PreTrainedConfig, max_length: int) -> tuple[DtypeChoice, Resolved, PeftModel]:
        hyperparameters = self.spec.method.hyperparameters
        dtype = choose_dtype(hyperparameters.dtype, config)
        workload = Workload(
            lengths=tuple(len(row.input_ids) for row in self.training.prepared.rows),
            hidden_size=hidden_size(config),
            device="cuda" if device().type == "cuda" else "cpu",
            dtype=dtype.dtype,
            max_length=max_length,
        )
        resolved = resolve(hyperparameters, workload, self.spec.seed)
        return dtype, resolved, add_lora(load_model(self.base, dtype.dtype), resolved.lora, resolved.seed)

    def _build(self, model: PeftModel, resolved: Resolved) -> SupervisedTrainer:
        resume = verified_checkpoint(self.workdir / "checkpoint") if self.spec.resume else None
        parts = TrainingParts(
            workdir=self.workdir,
            base_id=self.spec.base.id,
            model=model,
            tokenizer=self.template.tokenizer,
            rows=self.training.prepared.rows,
            validation=self.validation.prepared.rows if self.validation else (),
            resolved=resolved,
            progress=Progress.load(resume) if resume else Progress(),
            sink=self.sink,
            should_stop=self.stop,
        )
        trainer = self.spec.method.build(parts)
        self._tell_configuration(model, resolved)
        return trainer

    def _tell_configuration(self, model: PeftModel, resolved: Resolved) -> None:
        trainable, total = model.get_nb_trainable_parameters()
        self.counts = {
            "rows": len(self.training.prepared.rows),
            "validation_rows": len(self.validation.prepared.rows) if self.validation else 0,
            "dropped": len(self.training.prepared.dropped),
            "cut": len(self.training.prepared.cut),
            "tokens_per_epoch": self.training.prepared.tokens,
            "trained_tokens_per_epoch": self.training.prepared.trained_tokens,
            "trainable_parameters": int(trainable),
            "total_parameters": int(total),
        }
        message = (
            f"{self.counts['rows']} rows, {resolved.n_epochs} epoch(s), {resolved.total_steps} steps, learning rate "
            f"{resolved.learning_rate:.3g}, {resolved.dtype}, {trainable:,} of {total:,} parameters trained"
        )
        self.sink.emit(Configured(hyperparameters=resolved.model_dump(), counts=self.counts, message=message))

    def _measured(self) -> list[TokenizedRow]:
        """Return the rows that base and tuned model are compared on: held out, or else a part of the training rows."""
        return list(self.validation.prepared.rows) if self.validation else subset(self.training.prepared.rows)

    def _score_base(self, model: PeftModel, resolved: Resolved) -> list[RowScore]:
        scores = score_rows(model, self._measured(), self._pad_id(), base=True)
        if self.validation:
            self.sink.emit(evaluation_event("base", 0, resolved.total_steps, scores, full=True))
        return scores

    def _score_tuned(self, trainer: SupervisedTrainer, model: PeftModel) -> list[RowScore]:
        if trainer.final_scores is not None:
            return trainer.final_scores
        return score_rows(model, self._measured(), self._pad_id())

    def _samples(self, model: PeftModel, config: PreTrainedConfig) -> list[Sample]:
        return make_samples(
            model,
            self.template,
            self.validation.chat if self.validation else self.training.chat,
            count=self.spec.sample_count,
            context=context_length(config),
            source="validation" if self.validation else "training",
        )

    def _export(self, model: PeftModel, resolved: Resolved) -> None:
        card = model_card(self.spec, resolved, rows=self.counts["rows"])
        folder = self.workdir / ADAPTER_FOLDER
        export_adapter(model, self.template.tokenizer, folder, base_id=self.spec.base.id, card=card)

    def _verify(self, model: PeftModel, dtype: DtypeChoice) -> Verification:
        folder = self.workdir / ADAPTER_FOLDER
        rows = self._measured()
        return verify_export(model, self.base, folder, rows, dtype=dtype.dtype, pad_id=self._pad_id())

    def _report(
        self,
        resolved: Resolved,
        dtype: DtypeChoice,
        progress: Progress,
        base_scores: list[RowScore],
        tuned_scores: list[RowScore],
        samples: list[Sample],
        verification: Verification,
    ) -> Report:
        return Report(
            job_id=self.spec.job_id,
            model_name=self.spec.model_name,
            base=self.spec.base,
            method=self.spec.method.type,
            training=self.training.summary(),
            validation=self.validation.summary() if self.validation else None,
            hyperparameters=resolved,
            requested=self.spec.method.hyperparameters.model_dump(),
            counts=self.counts,
            warnings=tuple(self.warnings),
            environment={**describe(), "dtype": dtype.model_dump()},
            seconds=self.phases.seconds,
            tokens_seen=progress.tokens_seen,
            tokens_per_second=progress.tokens_seen / max(progress.train_seconds, 1e-9),
            measured_on="validation" if self.validation else "training",
            comparison=compare(base_scores, tuned_scores),
            steps=tuple(progress.steps),
            evaluations=tuple(progress.evaluations),
            samples=tuple(sample.model_dump() for sample in samples),
            verification=verification.model_dump(),
        )

    def _finish(self, progress: Progress, report: Report) -> None:
        """Write the result file and, last of all, the manifest that makes the folder a result."""
        (self.workdir / RESULT_CSV).write_text(progress.to_csv(), encoding="utf-8")
        shutil.rmtree(self.workdir / INCOMING_FOLDER, ignore_errors=True)
        output = self.workdir / OUTPUT_FOLDER
        files = entries_of(self.workdir, (path for path in output.rglob("*") if path.is_file()))
        facts = {"verdict": report.verdict.outcome, **progress.metrics()}
        write_manifest(self.workdir, Manifest(files=files, trained_tokens=progress.tokens_seen, facts=facts))

    def _warn(self, message: str) -> None:
        self.warnings.append(message)
        self.sink.emit(WarningEvent(message=message))

    def _pad_id(self) -> int:
        pad = self.template.tokenizer.pad_token_id
        assert isinstance(pad, int)
        return pad


def _read_spec(workdir: Path) -> JobSpec:
    try:
        return JobSpec.model_validate_json((workdir / "job.json").read_bytes())
    except FileNotFoundError as error:
        raise TrainerError("invalid_job", "The work folder has no job.json.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise TrainerError("invalid_job", f"job.json is not a job: {where}: {first['msg']}.", param=where) from error


def _lines(numbers: tuple[int, ...]) -> str:
    shown = ", ".join(str(number) for number in numbers[:SHOWN_LINES])
    return f"line {shown}" if len(numbers) <= SHOWN_LINES else f"line {shown} and {len(numbers) - SHOWN_LINES} more"
