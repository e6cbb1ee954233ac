/* SPDX-License-Identifier: MIT */
/*
 * The orchestrator: starts the children, says who moves when, keeps what they report, and judges.
 * It waits for events only, every wait can end because something broke, and nothing that it started
 * is left when it returns.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "demo.h"

#define TICK_MS	     50
#define HANG_US	     45000000ULL /* nothing at all has moved for so long */
#define ANSWER_US    30000000ULL /* more than the engine and the client wait for anything */
#define SETTLE_US    2000000ULL
#define MAX_CHILDREN (DEMO_SIDES * (DEMO_MAX_DEVICES + 1))

struct run {
	const struct demo_config *config;
	struct demo_outcome *outcome;
	struct demo_shared shared;
	struct folder folder;
	struct demo_family family;
	struct demo_show show;
	struct demo_child *hosts[DEMO_SIDES];
	uint64_t t0_us;
	int signal_fd;
	int signal_number; /* that asked us to end */
	const char *doing; /* for an error: a format that may take the migration's number */
	enum demo_side owner;
	bool lost;	    /* nobody has the set any more */
	uint32_t migration; /* under way or last; 0 before the first */
	/* What has been heard. */
	uint32_t ready;
	uint32_t listening;
	bool host_failed[DEMO_SIDES];
	bool server_gone[DEMO_SIDES];
	bool moved[DEMO_SIDES];
	struct demo_moved moves[DEMO_SIDES];
	/* To notice when nothing moves any more. */
	bool hung;
	uint64_t still_sum;
	uint64_t still_since_us;
};

static uint64_t now_us(void)
{
	const struct qsc_env *env = qsc_env_real();

	return env->now_us(env->ctx);
}

static uint64_t elapsed_us(const struct run *run)
{
	return now_us() - run->t0_us;
}

/* The first error is the one that counts; one more that followed from it is kept. */
static void fail(struct run *run, const struct demo_error *error)
{
	struct demo_outcome *outcome = run->outcome;

	if (!outcome->error.number) {
		outcome->error = *error;
		if (!*outcome->failed_at)
			(void)snprintf(outcome->failed_at, sizeof(outcome->failed_at), run->doing,
				       run->migration);
	} else if (!outcome->follows.number && !strstr(error->text, outcome->error.text)) {
		outcome->follows = *error;
	}
}

static void fail_text(struct run *run, int number, const char *fmt, ...) QSC_PRINTF(3, 4);
static void fail_text(struct run *run, int number, const char *fmt, ...)
{
	struct demo_error error = {.number = number};
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(error.text, sizeof(error.text), fmt, args);
	va_end(args);
	fail(run, &error);
}

/* A child that was killed is the cause of whatever else has been heard. */
static void fail_child(struct run *run, struct demo_child *child)
{
	struct demo_outcome *outcome = run->outcome;
	struct demo_error follows = outcome->error;

	if (child->device < 0)
		run->host_failed[child->side] = true;
	else
		run->server_gone[child->side] = true;
	if (child->told)
		return;
	child->told = true;
	outcome->error.number = 0;
	fail_text(run, ECHILD, "%s %s", child->name, child->end);
	if (follows.number)
		outcome->follows = follows;
}

static bool broken(const struct run *run)
{
	return run->signal_number || run->outcome->error.number;
}

/* ---- what children say ---- */

static void add_phase(struct run *run, const struct demo_phase *phase)
{
	struct demo_outcome *outcome = run->outcome;

	if (outcome->num_phases == outcome->max_phases) {
		size_t max = outcome->max_phases ? 2 * outcome->max_phases : 256;
		struct demo_phase *phases = realloc(outcome->phases,
						    max * sizeof(*outcome->phases));

		if (!phases) {
			outcome->phases_lost = true;
			return;
		}
		outcome->phases = phases;
		outcome->max_phases = max;
	}
	outcome->phases[outcome->num_phases] = *phase;
	outcome->phases[outcome->num_phases].start_us = phase->start_us > run->t0_us
								? phase->start_us - run->t0_us
								: 0;
	outcome->num_phases++;
}

static void on_message(struct run *run, struct demo_child *child,
		       const struct demo_message *message)
{
	switch (message->event) {
	case DEMO_EVENT_READY:
		run->ready++;
		break;
	case DEMO_EVENT_BEGUN:
		run->outcome->begun = true;
		break;
	case DEMO_EVENT_LISTENING:
		run->listening = message->migration;
		break;
	case DEMO_EVENT_PHASE:
		add_phase(run, &message->phase);
		break;
	case DEMO_EVENT_MOVED:
		run->moved[child->side] = true;
		run->moves[child->side] = message->moved;
		break;
	case DEMO_EVENT_VIOLATION:
		demo_add_violation(run->outcome, message->error.clause);
		demo_show_note(&run->show, "%s broken: %s", message->error.clause,
			       message->error.text);
		break;
	case DEMO_EVENT_RESULT:
		run->outcome->result = message->result;
		run->outcome->has_result = true;
		break;
	case DEMO_EVENT_FAILED:
		run->host_failed[child->side] |= child->device < 0;
		child->told = true;
		fail(run, &message->error);
		break;
	}
}

static void read_messages(struct run *run, struct demo_child *child)
{
	struct demo_message message;

	while (child->socket >= 0) {
		ssize_t n = recv(child->socket, &message, sizeof(message), MSG_DONTWAIT);

		if (n == (ssize_t)sizeof(message)) {
			on_message(run, child, &message);
			continue;
		}
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		close(child->socket);
		child->socket = -1;
	}
}

/* ---- waiting ---- */

static void on_child_end(struct run *run)
{
	uint32_t i;

	if (!demo_family_reap(&run->family))
		return;
	for (i = 0; i < run->family.count; i++) {
		struct demo_child *child = &run->family.children[i];

		if (child->pid || !*child->end)
			continue;
		/* What it said last first: it may be the reason. */
		read_messages(run, child);
		fail_child(run, child);
	}
}

static void read_signals(struct run *run)
{
	struct signalfd_siginfo info;

	while (read(run->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGCHLD)
			on_child_end(run);
		else
			run->signal_number = (int)info.ssi_signo;
	}
}

/* A number that changes whenever anything at all goes forward. */
static uint64_t activity(const struct run *run)
{
	uint64_t sum = run->ready + run->outcome->num_phases;
	int i;

	for (i = 0; i < DEMO_SIDES; i++) {
		struct demo_live *live = &run->shared.live[i];

		sum += atomic_load(&live->tenant.blocks) + atomic_load(&live->tenant.permille) +
		       ((uint64_t)atomic_load(&live->tenant.activity) << 48) +
		       atomic_load(&live->bytes_sent);
	}
	return sum;
}

static void notice_stillness(struct run *run)
{
	uint64_t sum = activity(run), now = now_us();

	if (sum != run->still_sum) {
		run->still_sum = sum;
		run->still_since_us = now;
	} else if (now - run->still_since_us > HANG_US) {
		run->hung = true;
		fail_text(run, ETIMEDOUT, "nothing has moved for %llu s",
			  (unsigned long long)(HANG_US / 1000000));
	}
}

/* Let things happen for at most timeout_ms. */
static void pump(struct run *run, int timeout_ms)
{
	struct pollfd polls[MAX_CHILDREN + 1];
	uint32_t i, count = run->family.count;

	for (i = 0; i < count; i++)
		polls[i] = (struct pollfd){.fd = run->family.children[i].socket, .events = POLLIN};
	polls[count] = (struct pollfd){.fd = run->signal_fd, .events = POLLIN};
	if (poll(polls, count + 1, timeout_ms) > 0) {
		for (i = 0; i < count; i++) {
			if (polls[i].revents)
				read_messages(run, &run->family.children[i]);
		}
		read_signals(run);
	}
	notice_stillness(run);
	demo_show_tick(&run->show, run->config, elapsed_us(run), run->migration, run->owner,
		       run->shared.live);
}

static void order(struct run *run, enum demo_side side, enum demo_order what)
{
	struct demo_command command = {.order = what, .migration = run->migration};

	run->still_since_us = now_us();
	if (run->hosts[side]->socket < 0 ||
	    send(run->hosts[side]->socket, &command, sizeof(command), MSG_NOSIGNAL) < 0)
		run->host_failed[side] = true;
}

/* ---- start ---- */

static int prepare(struct run *run, struct qsc_error *err)
{
	sigset_t set;
	void *live;
	int result;

	/* A signal must not come between making the directory and being ready to remove it. */
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	run->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (run->signal_fd < 0)
		return qsc_error_set(err, errno, NULL, "signalfd: %s", strerror(errno));
	result = demo_folder_make(&run->folder, run->shared.directory,
				  sizeof(run->shared.directory), err);
	if (result < 0) {
		run->outcome->unusable = true;
		return result;
	}
	live = mmap(NULL, DEMO_SIDES * sizeof(struct demo_live), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (live == MAP_FAILED)
		return qsc_error_set(err, errno, NULL, "no memory: %s", strerror(errno));
	run->shared.live = live;
	result = demo_family_make(&run->family, MAX_CHILDREN);
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "no memory");
	return 0;
}

static int start_children(struct run *run, struct qsc_error *err)
{
	int32_t device, devices = (int32_t)run->config->tenant.devices;
	int side, result = 0;

	for (side = 0; side < DEMO_SIDES && !result; side++) {
		run->hosts[side] = &run->family.children[run->family.count];
		for (device = -1; device < devices && !result; device++)
			result = demo_family_fork(&run->family, &run->shared, (enum demo_side)side,
						  device, err);
	}
	return result;
}

static void begin(struct run *run)
{
	struct demo_live *live = &run->shared.live[DEMO_SIDE_A];

	while (!broken(run) && run->ready < run->family.count)
		pump(run, TICK_MS);
	if (broken(run))
		return;
	order(run, DEMO_SIDE_A, DEMO_ORDER_BEGIN);
	while (!broken(run) &&
	       (!run->outcome->begun || atomic_load(&live->tenant.activity) == TENANT_FILLING))
		pump(run, TICK_MS);
}

/* ---- one migration ---- */

static uint64_t blocks_of(const struct run *run, enum demo_side side)
{
	return atomic_load(&run->shared.live[side].tenant.blocks);
}

static double rate(uint64_t blocks, uint64_t us)
{
	return us ? (double)blocks * 1e6 / (double)us : 0;
}

static bool side_done(const struct run *run, enum demo_side side)
{
	return run->moved[side] || run->host_failed[side];
}

/* Until sending and receiving have ended. One that has not when the other has is given a while. */
static void await_both(struct run *run, enum demo_side from, enum demo_side to)
{
	uint64_t deadline = UINT64_MAX;

	while (!run->signal_number && !run->hung) {
		bool sent = side_done(run, from), received = side_done(run, to);
		enum demo_side late = sent ? to : from;

		if (sent && received)
			return;
		if ((sent || received) && deadline == UINT64_MAX)
			deadline = now_us() + ANSWER_US;
		if (now_us() > deadline) {
			fail_text(run, ETIMEDOUT, "host %c has not answered for %llu s",
				  demo_side_name(late), (unsigned long long)(ANSWER_US / 1000000));
			run->host_failed[late] = true;
		}
		pump(run, TICK_MS);
	}
}

static uint64_t relative(const struct run *run, uint64_t us)
{
	return us > run->t0_us ? us - run->t0_us : 0;
}

static void note_times(struct run *run, struct demo_migration *migration, enum demo_side to)
{
	struct tenant_live *from = &run->shared.live[migration->from].tenant;
	struct tenant_live *at = &run->shared.live[migration->failed ? migration->from : to].tenant;
	struct demo_phase stop = {
		.name = "downtime",
		.migration = migration->number,
		.side = migration->from,
		.source = true,
		.device = -1,
	};
	uint64_t paused_us = atomic_load(&from->paused_us);
	uint64_t resumed_us = atomic_load(&at->resumed_us);

	if (paused_us < migration->start_us + run->t0_us || resumed_us < paused_us)
		return;
	migration->paused_us = relative(run, paused_us);
	migration->resumed_us = relative(run, resumed_us);
	migration->downtime_us = resumed_us - paused_us;
	stop.start_us = paused_us;
	stop.duration_us = migration->downtime_us;
	add_phase(run, &stop);
}

/* Both have ended: who has the set, and what does it mean. */
static void judge_move(struct run *run, struct demo_migration *migration, enum demo_side to)
{
	const struct demo_moved *source = &run->moves[migration->from];
	const struct demo_moved *destination = &run->moves[to];
	bool heard = run->moved[migration->from];

	migration->failed = !heard || source->error.number || !run->moved[to] ||
			    destination->error.number;
	/* A side sends its phases before it says that it has moved. */
	run->outcome->phases_lost |= !heard || !run->moved[to];
	if (heard) {
		migration->source = source->report;
		(void)snprintf(migration->outcome, sizeof(migration->outcome), "%s",
			       source->report.outcome);
	}
	if (!migration->failed) {
		run->owner = to;
		return;
	}
	/* The destination knows best what it refused, the source what it could not do. */
	if (run->moved[to] && destination->error.number && *destination->error.clause)
		fail(run, &destination->error);
	if (heard && source->error.number)
		fail(run, &source->error);
	if (run->moved[to] && destination->error.number)
		fail(run, &destination->error);
	if (run->moved[to] && !destination->error.number) {
		/* It had been handed over before the source failed. */
		run->owner = to;
		run->lost = destination->stopped;
	} else {
		run->lost = !heard || source->report.owner != QSC_OWNER_SOURCE || source->stopped;
	}
}

/*
 * Until the destination is ready for the source. It has a deadline of its own, for the tenant goes
 * on meanwhile: something moves all the time.
 */
static bool await_listening(struct run *run, enum demo_side to)
{
	uint64_t deadline = now_us() + ANSWER_US;

	order(run, to, DEMO_ORDER_RECEIVE);
	while (!broken(run) && run->listening != run->migration && !side_done(run, to)) {
		if (now_us() > deadline) {
			fail_text(run, ETIMEDOUT, "host %c has not made itself ready for %llu s",
				  demo_side_name(to), (unsigned long long)(ANSWER_US / 1000000));
			run->host_failed[to] = true;
		}
		pump(run, TICK_MS);
	}
	return run->listening == run->migration;
}

static void migrate(struct run *run, struct demo_migration *migration)
{
	enum demo_side from = run->owner;
	enum demo_side to = from == DEMO_SIDE_A ? DEMO_SIDE_B : DEMO_SIDE_A;
	uint64_t blocks = blocks_of(run, from), end_us;

	memset(run->moved, 0, sizeof(run->moved));
	migration->from = from;
	if (!await_listening(run, to)) {
		/* The source was not asked for anything yet. */
		if (run->moved[to])
			fail(run, &run->moves[to].error);
		migration->failed = true;
		return;
	}
	migration->begun = true;
	migration->start_us = elapsed_us(run);
	demo_show_note(&run->show, "%6.1f s  migration %u begins",
		       (double)migration->start_us / 1e6, migration->number);
	order(run, from, DEMO_ORDER_SEND);
	await_both(run, from, to);
	migration->ended = true;
	migration->end_us = elapsed_us(run);
	judge_move(run, migration, to);
	note_times(run, migration, to);
	end_us = migration->paused_us ? migration->paused_us : migration->end_us;
	migration->rate_during = rate(blocks_of(run, from) - blocks, end_us - migration->start_us);
}

/* ---- the whole ---- */

/* Whether the tenant can, where it is. It would notice itself, but only when it has waited. */
static bool can_go_on(const struct run *run)
{
	return !run->host_failed[run->owner] && !run->server_gone[run->owner];
}

/* Traffic between migrations, and what it came to. */
static void traffic(struct run *run, struct demo_migration *before, struct demo_migration *after)
{
	struct tenant_live *live = &run->shared.live[run->owner].tenant;
	uint64_t blocks = atomic_load(&live->blocks), start_us = now_us(), end_us;
	double rate_now;

	/* Also after a failure: the source goes on, and is seen to. */
	end_us = start_us + run->config->traffic_us;
	while (!run->signal_number && can_go_on(run) && now_us() < end_us)
		pump(run, TICK_MS);
	rate_now = rate(atomic_load(&live->blocks) - blocks, now_us() - start_us);
	if (before) {
		before->rate_after = rate_now;
		if (atomic_load(&live->first_block_us))
			before->first_block_us = relative(run, atomic_load(&live->first_block_us));
	}
	if (after)
		after->rate_before = rate_now;
}

static void finish(struct run *run)
{
	order(run, run->owner, DEMO_ORDER_FINISH);
	while (!run->signal_number && !run->hung && !run->outcome->has_result && can_go_on(run))
		pump(run, TICK_MS);
}

static void play(struct run *run)
{
	struct demo_outcome *outcome = run->outcome;
	struct demo_migration *last = NULL;
	uint32_t i;

	begin(run);
	if (broken(run))
		return;
	for (i = 0; i < run->config->migrations && !broken(run); i++) {
		struct demo_migration *migration = &outcome->migrations[i];

		run->doing = "failed before migration %u";
		run->migration = i + 1;
		traffic(run, last, migration);
		if (broken(run))
			break;
		last = migration;
		migration->number = i + 1;
		run->doing = "migration %u failed";
		migrate(run, migration);
		demo_show_moved(&run->show, migration);
	}
	if (run->lost || !can_go_on(run) || run->signal_number)
		return;
	run->doing = "failed after migration %u";
	traffic(run, last, NULL);
	finish(run);
}

/*
 * A process that dies is heard of by those it talked to before its parent is told. The cause is
 * worth a moment.
 */
static void settle(struct run *run)
{
	uint64_t end = now_us() + SETTLE_US;
	bool going = true;
	uint32_t i;

	while (!run->signal_number && going && now_us() < end) {
		pump(run, TICK_MS);
		going = false;
		for (i = 0; i < run->family.count; i++)
			going |= run->family.children[i].pid && run->family.children[i].socket < 0;
	}
}

/* For whoever reads the error: what state everything was in, what it is in now, what to do. */
static void advise(struct run *run)
{
	static const char tail[] =
		"the demo has ended everything it had started: mend the cause and start again";
	struct demo_outcome *outcome = run->outcome;
	const struct demo_moved *moved = &run->moves[run->owner];
	char side = demo_side_name(run->owner), states[320];
	size_t size = sizeof(outcome->advice);

	if (!outcome->begun) {
		(void)snprintf(outcome->advice, size, "the tenant had not started; %s", tail);
	} else if (outcome->has_result) {
		(void)snprintf(outcome->advice, size,
			       "the devices of side %c ran and the tenant went on there to its "
			       "end; %s",
			       side, tail);
	} else if (run->moved[run->owner] && moved->has_states) {
		demo_describe_states(moved->states, run->config->tenant.devices, states,
				     sizeof(states));
		(void)snprintf(outcome->advice, size,
			       "devices of side %c, which had the set: %s; the tenant could not go "
			       "on; %s",
			       side, states, tail);
	} else {
		(void)snprintf(outcome->advice, size,
			       "the states of the devices of side %c, which had the set, are not "
			       "known; the tenant could not go on; %s",
			       side, tail);
	}
}

int demo_run(const struct demo_config *config, struct demo_outcome *outcome, int *signal_number)
{
	struct run run = {
		.config = config,
		.outcome = outcome,
		.shared = {.config = *config},
		.folder = FOLDER_NONE,
		.signal_fd = -1,
		.show = {.quiet = config->json},
		.doing = "cannot start",
		.t0_us = now_us(),
	};
	struct qsc_error err = QSC_ERROR_NONE;
	sigset_t none;
	int result;

	*outcome = (struct demo_outcome){
		.config = *config,
		.block_bytes = tenant_block_bytes(&config->tenant),
	};
	outcome->migrations = calloc(config->migrations, sizeof(*outcome->migrations));
	run.still_since_us = run.t0_us;
	if (outcome->migrations)
		result = prepare(&run, &err);
	else
		result = qsc_error_set(&err, ENOMEM, NULL, "no memory");
	if (!result) {
		demo_show_begin(&run.show, config);
		result = start_children(&run, &err);
	}
	if (!result)
		play(&run);
	else
		fail_text(&run, -result, "%s", err.text);
	if (outcome->error.number) {
		if (run.family.count)
			settle(&run);
		advise(&run);
	}
	demo_judge(outcome);
	demo_family_end(&run.family);
	folder_remove(&run.folder);
	outcome->total_us = elapsed_us(&run);
	if (run.shared.live)
		munmap(run.shared.live, DEMO_SIDES * sizeof(struct demo_live));
	if (run.signal_fd >= 0)
		close(run.signal_fd);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	*signal_number = run.signal_number;
	if (run.signal_number)
		return -EINTR;
	if (outcome->unusable)
		return -EINVAL;
	demo_show_outcome(&run.show, outcome);
	return 0;
}

void demo_outcome_release(struct demo_outcome *outcome)
{
	free(outcome->phases);
	free(outcome->migrations);
	outcome->phases = NULL;
	outcome->migrations = NULL;
}
