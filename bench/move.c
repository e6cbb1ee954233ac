/* SPDX-License-Identifier: MIT */
/*
 * Moving sets of many sizes from one process to another over a UNIX socket: how long the devices
 * are down and how long all of it takes, beside the limits of the same bytes: a memcpy, and a bare
 * UNIX socket that carries them. Both go round in memory that no cache holds and that is there
 * already. The destination's devices are new, so that the faults of all their memory are part of
 * what is measured; a bare socket into new memory takes longer than the move.
 */
#include "bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <quiesce/migrate.h>

#define MIB	   ((uint64_t)1 << 20)
#define CHUNK	   MIB
#define MEMORY	   (64 * MIB)
#define MAX_ROUNDS 3

/* ---- the limits ---- */

static double copy_round(char *to, const char *from, uint64_t bytes)
{
	uint64_t start = bench_now_ns();

	for (uint64_t done = 0; done < bytes; done += CHUNK) {
		memcpy(to + done % MEMORY, from + done % MEMORY, CHUNK);
		__asm__ volatile("" : : "r"(to) : "memory");
	}
	return (double)(bench_now_ns() - start) / 1e3;
}

/* Takes what comes into memory, and says after every `bytes` that they are there. */
static void sink(int fd, const void *arg)
{
	const uint64_t bytes = *(const uint64_t *)arg;
	char *memory = bench_memory(MEMORY);
	uint64_t done = 0;

	for (;;) {
		ssize_t got = recv(fd, memory + done % MEMORY, CHUNK - done % CHUNK, 0);

		if (got <= 0)
			return;
		done += (uint64_t)got;
		if (done == bytes) {
			done = 0;
			if (send(fd, "", 1, MSG_NOSIGNAL) != 1)
				return;
		}
	}
}

static double socket_round(int fd, const char *from, uint64_t bytes)
{
	uint64_t start = bench_now_ns();
	char there;

	for (uint64_t done = 0; done < bytes;) {
		ssize_t sent = send(fd, from + done % MEMORY, CHUNK - done % CHUNK, MSG_NOSIGNAL);

		if (sent < 0)
			bench_die("the bare socket's peer is gone", errno);
		done += (uint64_t)sent;
	}
	if (recv(fd, &there, 1, 0) != 1)
		bench_die("the bare socket's peer is gone", EPIPE);
	return (double)(bench_now_ns() - start) / 1e3;
}

/* ---- one move ---- */

static int nothing(void *ctx)
{
	return 0;
}

/* A user without memory of its own: only the state of devices moves. */
static const struct qsc_migrate_user user = {.pause = nothing, .resume = nothing};

/* Begins when told by a byte, so that the source finds a listener. */
static void destination(const char *path, const struct bench_move *move, int ready)
{
	struct qsc_migrate_options options = {.quiesce = QSC_QUIESCE_NATIVE};
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_migrate_report report;
	struct qsc_transport *transport;
	struct bench_fleet fleet;
	int ret;

	bench_fleet_open(&fleet, move->devices, move->state, false);
	ret = qsc_transport_unix_listen(path, &transport, &err);
	if (!ret && write(ready, "", 1) != 1)
		ret = -EPIPE;
	if (!ret)
		ret = qsc_migrate_receive(fleet.set, &user, transport, &options, &report, &err);
	if (ret)
		bench_die(err.text, ret);
	qsc_transport_close(transport);
	if (!bench_fleet_filled(&fleet))
		bench_die("what arrived is not what was sent", EBADMSG);
	bench_fleet_close(&fleet);
}

static pid_t start_destination(const char *path, const struct bench_move *move)
{
	int ready[2];
	pid_t pid;
	char byte;

	if (pipe(ready))
		bench_die("cannot make a pipe", errno);
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		bench_die("cannot start a process", errno);
	if (!pid) {
		close(ready[0]);
		destination(path, move, ready[1]);
		_exit(0);
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		bench_die("the destination did not start", EPIPE);
	close(ready[0]);
	return pid;
}

static void move_round(const char *path, const struct bench_move *move, double *downtime,
		       double *total)
{
	/* However long it takes: that is what is measured. */
	const struct qsc_migrate_options options = {.no_precopy = !move->precopy,
						    .exceed_downtime = true};
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_migrate_report report;
	struct qsc_transport *transport;
	struct bench_fleet fleet;
	pid_t pid = start_destination(path, move);
	int status;
	int ret;

	bench_fleet_open(&fleet, move->devices, move->state, true);
	ret = qsc_transport_unix_connect(path, &transport, &err);
	if (!ret)
		ret = qsc_migrate_send(fleet.set, &user, transport, &options, &report, &err);
	if (ret)
		bench_die(err.text, ret);
	qsc_transport_close(transport);
	bench_fleet_close(&fleet);
	if (waitpid(pid, &status, 0) != pid || status)
		bench_die("the destination failed", ECHILD);
	*downtime = (double)report.downtime_us;
	*total = (double)report.total_us;
}

static void bench_one(struct bench_run *run, const char *path, struct bench_move move)
{
	const uint64_t bytes = move.devices * move.state;
	const size_t rounds = run->quick ? 1 : MAX_ROUNDS;
	double downtime[MAX_ROUNDS];
	double total[MAX_ROUNDS];
	double carried[MAX_ROUNDS];
	double copied[MAX_ROUNDS];
	struct bench_peer peer;
	char *from;
	char *to;

	bench_peer_start(&peer, run->cpus[1], sink, &bytes);
	from = bench_memory(MEMORY);
	to = bench_memory(MEMORY);
	for (size_t i = 0; i < rounds; i++) {
		move_round(path, &move, &downtime[i], &total[i]);
		carried[i] = socket_round(peer.fd, from, bytes);
		copied[i] = copy_round(to, from, bytes);
	}
	munmap(from, MEMORY);
	munmap(to, MEMORY);
	bench_peer_end(&peer);
	move.downtime_us = bench_median(downtime, rounds);
	move.total_us = bench_median(total, rounds);
	move.socket_us = bench_median(carried, rounds);
	move.memcpy_us = bench_median(copied, rounds);
	if (run->num_moves == BENCH_MAX_MOVES)
		bench_die("too many moves", ENOSPC);
	run->moves[run->num_moves++] = move;
}

void bench_moves(struct bench_run *run)
{
	static const size_t counts[] = {1, 4, 16, 64, 256};
	const size_t sizes = run->quick ? 2 : 5;
	char folder[] = "/tmp/quiesce-bench-XXXXXX";
	char path[64];

	bench_spread(run);
	if (!mkdtemp(folder))
		bench_die("cannot make a folder for a socket", errno);
	snprintf(path, sizeof(path), "%s/move", folder);
	for (int precopy = 0; precopy < 2; precopy++) {
		for (size_t i = 0; i < sizes; i++)
			bench_one(run, path,
				  (struct bench_move){.devices = counts[i],
						      .state = 4 * MIB,
						      .precopy = precopy});
		if (!run->quick)
			bench_one(run, path,
				  (struct bench_move){
					  .devices = 4, .state = 100 * MIB, .precopy = precopy});
	}
	rmdir(folder);
}
