"""The training loop."""

from collections.abc import Callable

from oelm_lib.runs.folder import Run
from oelm_lib.training.record import check_numbers, evaluate, log, save
from oelm_lib.training.result import finish
from oelm_lib.training.session import open_session


def train(run: Run, on_progress: Callable[[bool], None] | None = None) -> None:
    """Train a run from its newest checkpoint to its end, and record it.

    A finished run is left as it is. SIGINT, SIGTERM, SIGUSR1, SIGHUP or a STOP file in the run
    folder save and stop; the same call continues later.

    Args:
        run: As `oelm_lib.runs.open_run` returns it.
        on_progress: Called after each progress line, with whether it is the last.

    Raises:
        UserError: A loss or gradient is not finite, the disk refuses a file, the GPU's memory is
            full, another process writes the run, or the run cannot be continued.
    """
    if run.finished:
        print(f"{run.name} is done, so it is not trained again (oelm run ID --fresh starts over)")
        return
    with open_session(run, on_progress) as session:
        cfg, state, budget = run.config, session.state, session.budget
        while not state.is_last_step and not session.stopping():
            # batch
            with budget("data"):
                batch = state.next_batch()

            # forward, backward, check, clip, update
            with budget("step"):
                state.apply_freeze()
                loss = state.backward(batch)
                norm = state.clip(loss)
                if not state.asynchronous:
                    check_numbers(session)  # on a GPU, log(), evaluate() and save() check
                rate = state.update()
            session.status.update(write=False, step=state.step)

            # log
            if state.step % cfg.machine.log_interval == 0 or state.is_last_step:
                log(session, norm, rate)

            # evaluate
            if state.step % cfg.train.eval_interval == 0 or state.is_last_step:
                evaluate(session)

            # save
            if state.step % cfg.train.save_interval == 0 or state.is_last_step:
                save(session)
        is_done = state.is_last_step and finish(session)
        if not is_done:
            save(session)
            session.saver.wait()
            session.console.line(
                f"stopped at step {state.step:,}, saved; the same command continues from here"
            )
