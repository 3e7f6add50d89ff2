"""One job from its folder to its result: read, load, measure, train, measure, export, verify, report."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Sequence
from pathlib import Path

from trainer.contract.events import ConfiguredEvent, ErrorEvent, WarningEvent
from trainer.contract.result import (
    ADAPTER_FOLDER,
    MODEL_FOLDER,
    OUTPUT_FOLDER,
    RESULT_CSV,
    ExitCode,
    Manifest,
    hash_files,
    write_manifest,
)
from trainer.engine.adapter_export import Verification
from trainer.engine.loop.checkpoints import verified_checkpoint
from trainer.engine.loop.training_loop import evaluation_event
from trainer.engine.models.environment import describe_environment
from trainer.engine.recipe import Loop, Recipe
from trainer.engine.scoring.samples import AnswerComparison, SampleAnswer, side_by_side
from trainer.kit.errors import Stopped, as_trainer_error
from trainer.kit.event_sink import EventSink
from trainer.kit.job_context import JobContext
from trainer.kit.phases import Phases
from trainer.kit.progress import TrainingProgress
from trainer.kit.statistics import Measure, compare_measures
from trainer.kit.stop import StopFlag
from trainer.kit.workdir import CHECKPOINT_FOLDER, INCOMING_FOLDER, read_spec
from trainer.recipes import recipe_for
from trainer.report.card import model_card
from trainer.report.model import Report
from trainer.report.write import write_report


def run_training_job(workdir: Path, stop: StopFlag) -> ExitCode:
    """Run the job in `workdir`; every way to fail is one `error` event and an exit code, never only a traceback."""
    sink = EventSink(workdir)
    try:
        _Job(workdir, sink, stop).run_phases()
    except Stopped:
        return ExitCode.STOPPED
    except Exception as error:  # noqa: BLE001 - the last line of defence: a fault becomes an event
        traceback.print_exc()
        known = as_trainer_error(error)
        sink.emit(ErrorEvent(code=known.code, message=known.message, param=known.param))
        return known.exit_code
    finally:
        sink.close()
    return ExitCode.DONE


class _Job:
    """The state that the steps of a run hand on."""

    def __init__(self, workdir: Path, sink: EventSink, stop: StopFlag) -> None:
        self.workdir = workdir
        self.sink = sink
        self.stop = stop
        self.phases = Phases(sink, stop)
        self.warnings: list[str] = []

    def run_phases(self) -> None:
        """Go through the whole job."""
        self.spec = spec = read_spec(self.workdir)
        self._clear_leftovers()
        job = JobContext(self.workdir, spec, self.sink, self.stop, self._add_warning)
        self.meter = job.meter
        recipe = recipe_for(job)
        with self.phases.enter("tokenizing", "Reading the rows and turning them into tokens"):
            recipe.data.read_data()
        with self.phases.enter("loading", f"Loading {spec.start.id if spec.start else spec.base.id}"):
            recipe.prepare_model()
            recipe.choose_questions()
        loop = self._build_loop(recipe)
        with self.phases.enter("evaluating_base", "Measuring the model that the job starts from"):
            base, base_answers = self._measure_base(recipe)
        with self.phases.enter("training", f"Training for {recipe.resolved.total_steps} steps"):
            loop.fit(self.workdir / CHECKPOINT_FOLDER if spec.resume else None)
        if ended := self.meter.conclude_training(loop.progress.last_step):
            self._add_warning(ended)
        with self.phases.enter("evaluating", "Measuring the tuned model and answering prompts"):
            tuned = getattr(loop, "final", None) or recipe.measure_model()
            samples = side_by_side(recipe.questions, base_answers, recipe.answer_questions())
        folder = self.workdir / (MODEL_FOLDER if recipe.kind == "model" else ADAPTER_FOLDER)
        with self.phases.enter("exporting", "Writing the result"):
            recipe.export_result(folder, self._make_card(recipe))
        with self.phases.enter("verifying", "Reloading the result and comparing it with the trained model"):
            verification = recipe.verify_result(folder)
        with self.phases.enter("reporting", "Writing the report"):
            report = self._make_report(recipe, loop.progress, (base, tuned), samples, verification)
            write_report(self.workdir, report)
        self._write_result(recipe, loop.progress, report)

    def _clear_leftovers(self) -> None:
        """Remove what an earlier, interrupted run in the same folder may have left."""
        for name in (OUTPUT_FOLDER, INCOMING_FOLDER):
            shutil.rmtree(self.workdir / name, ignore_errors=True)

    def _build_loop(self, recipe: Recipe) -> Loop:
        resume = verified_checkpoint(self.workdir / CHECKPOINT_FOLDER) if self.spec.resume else None
        loop = recipe.make_loop(TrainingProgress.load(resume) if resume else TrainingProgress())
        if self.meter.plan_sentence:
            self._add_warning(self.meter.plan_sentence)
        resolved, training = recipe.resolved, recipe.data.training
        trained, total = recipe.count_parameters()
        self.counts = {
            "rows": len(training.rows),
            "validation_rows": len(recipe.data.validation.rows) if recipe.data.validation else 0,
            "dropped": len(training.dropped),
            "cut": len(training.cut),
            "tokens_per_epoch": training.tokens,
            "trained_tokens_per_epoch": training.trained_tokens,
            "trainable_parameters": trained,
            "total_parameters": total,
        }
        message = (
            f"{self.counts['rows']} rows, {resolved.n_epochs} epoch(s), {resolved.total_steps} steps, learning rate "
            f"{resolved.learning_rate:.3g}, {resolved.dtype}, {trained:,} of {total:,} parameters trained"
        )
        self.sink.emit(ConfiguredEvent(hyperparameters=resolved.shown(), counts=self.counts, message=message))
        return loop

    def _measure_base(self, recipe: Recipe) -> tuple[tuple[Measure, ...], list[SampleAnswer]]:
        """Measure and ask before the first step: the adapter is still what the job starts from, resumed or not."""
        measures = recipe.measure_model()
        if recipe.data.validation:
            self.sink.emit(evaluation_event(recipe, "base", 0, measures))
        return measures, recipe.answer_questions()

    def _make_card(self, recipe: Recipe) -> str:
        return model_card(
            self.spec, recipe.resolved, rows=self.counts["rows"], kind=recipe.kind, model_class=recipe.model_class
        )

    def _make_report(
        self,
        recipe: Recipe,
        progress: TrainingProgress,
        measures: tuple[Sequence[Measure], Sequence[Measure]],
        samples: list[AnswerComparison],
        verification: Verification,
    ) -> Report:
        spec = self.spec
        return Report(
            job_id=spec.job_id,
            model_name=spec.model_name,
            base=spec.base,
            start=spec.start,
            reward=spec.reward,
            lineage=spec.lineage,
            kind=recipe.kind,
            method=spec.method.type,
            training=recipe.data.training.summarise_file(),
            validation=recipe.data.validation.summarise_file() if recipe.data.validation else None,
            hyperparameters=recipe.resolved,
            requested=spec.method.hyperparameters.model_dump(mode="json"),
            counts=self.counts,
            warnings=tuple(self.warnings),
            environment={**describe_environment(), "dtype": recipe.dtype.model_dump()},
            seconds=self.phases.seconds,
            tokens_seen=progress.tokens_seen,
            tokens_per_second=progress.tokens_seen / max(progress.train_seconds, 1e-9),
            measured_on=recipe.data.measured_on,
            comparison=compare_measures(*measures),
            plots=recipe.plots,
            steps=tuple(progress.steps),
            evaluations=tuple(progress.evaluations),
            samples=tuple(sample.model_dump() for sample in samples),
            verification=verification.model_dump(),
            adapter=recipe.adapter_targets,
        )

    def _write_result(self, recipe: Recipe, progress: TrainingProgress, report: Report) -> None:
        """Write the result file and, last of all, the manifest that makes the folder a result."""
        (self.workdir / RESULT_CSV).write_text(progress.to_csv(), encoding="utf-8")
        shutil.rmtree(self.workdir / INCOMING_FOLDER, ignore_errors=True)
        output = self.workdir / OUTPUT_FOLDER
        files = hash_files(self.workdir, (path for path in output.rglob("*") if path.is_file()))
        facts = {
            "kind": recipe.kind,
            "verdict": report.verdict.outcome,
            "ended_by": "budget" if self.meter.spent else None,
            "train_seconds": progress.train_seconds,
            **progress.latest_metrics(),
        }
        write_manifest(self.workdir, Manifest(files=files, trained_tokens=progress.tokens_seen, facts=facts))

    def _add_warning(self, message: str) -> None:
        self.warnings.append(message)
        self.sink.emit(WarningEvent(message=message))
