/* SPDX-License-Identifier: MIT */
/*
 * The proof that every clause which binds a device is tested, and that each test can fail.
 *
 *   clauses honest   every clause holds on every device that promises it
 *   clauses liars    every liar is caught by the test of its clause, and by no other that the lie
 *                    does not name; no clause is without a test and a liar
 *   clauses actions  every cell of the allowed list, tried
 */
#include <stdio.h>
#include <string.h>

#include <quiesce/contract.h>

#include "actions.h"
#include "clause.h"
#include "device.h"
#include "tap.h"

#define NUM(array) (sizeof(array) / sizeof((array)[0]))

/* A device is watched that long, several times in a test, for what it must not do. */
#define SETTLE_US 1500

/* Nobody waits that long for an honest device; a liar who does not deliver is not waited for. */
#define AWAIT_MS      5000
#define AWAIT_LIAR_MS 100

static const uint32_t flag_sets[] = {
	QSC_MIGRATION_STOP_COPY,
	QSC_MIGRATION_STOP_COPY | QSC_MIGRATION_P2P,
	QSC_MIGRATION_STOP_COPY | QSC_MIGRATION_PRE_COPY,
	QSC_MIGRATION_STOP_COPY | QSC_MIGRATION_P2P | QSC_MIGRATION_PRE_COPY,
};

static const struct lie *const lies[] = {state_lies, sess_lies, dev_lies, log_lies};

static bool binds_device(enum qsc_clause clause)
{
	return qsc_clause_info(clause)->binds == QSC_PARTY_DEVICE;
}

static const char *const ways[] = {"runtime", "vfio-user", "vfio-user-without-fds"};

static const char *describe(const struct device_config *c, char text[64])
{
	snprintf(text, 64, "flags=%u %s %s", c->flags,
		 c->tells_peers ? "tells-peers" : "all-are-peers", ways[c->way]);
	return text;
}

/* Which capability a clause speaks about; a device with it must be seen to keep the clause. */
static bool promised(enum qsc_clause clause, uint32_t flags)
{
	switch (clause) {
	case QSC_CLAUSE_ARC_4:
	case QSC_CLAUSE_SESS_4:
		return flags & QSC_MIGRATION_PRE_COPY;
	case QSC_CLAUSE_DEV_4:
	case QSC_CLAUSE_DEV_5:
		return flags & QSC_MIGRATION_P2P;
	default:
		return true;
	}
}

static int with_device(const struct device_config *config, const struct lie *lie, struct harness *h,
		       struct device *d)
{
	int r = device_create(d, config, lie);

	h->opener = r ? NULL : &d->opener;
	h->tells_peers = config->tells_peers;
	h->violations = r ? NULL : &d->violations;
	return r;
}

static void without_device(struct harness *h, struct device *d)
{
	h->opener = NULL;
	h->violations = NULL;
	device_destroy(d);
}

/* ---- honest devices ---- */

/* kept: counts, for each clause, the devices that promise it and were seen to keep it. */
static void honest_device(struct harness *h, const struct device_config *config,
			  unsigned int kept[QSC_CLAUSE_COUNT])
{
	struct device d;
	char text[64];

	describe(config, text);
	if (with_device(config, NULL, h, &d)) {
		tap_result(false, "%s: cannot be made", text);
		return;
	}
	for (int c = 0; c < QSC_CLAUSE_COUNT; c++) {
		const struct clause_test *test = clause_find((enum qsc_clause)c);
		const char *id = qsc_clause_id((enum qsc_clause)c);
		enum clause_result result;

		if (!test)
			continue;
		result = clause_run(test, h);
		if (result == CLAUSE_NOT_PROMISED && !promised((enum qsc_clause)c, config->flags)) {
			tap_note("%s %s: not promised, %s", id, text, h->evidence);
			continue;
		}
		kept[c] += result == CLAUSE_HOLDS;
		tap_result(result == CLAUSE_HOLDS && promised((enum qsc_clause)c, config->flags),
			   "%s %s: %s, %s", id, text, clause_result_name(result), h->evidence);
	}
	without_device(h, &d);
}

static void honest_devices(struct harness *h)
{
	unsigned int kept[QSC_CLAUSE_COUNT] = {0};

	for (size_t f = 0; f < NUM(flag_sets); f++)
		for (int peers = 0; peers < 2; peers++) {
			struct device_config config = {flag_sets[f], peers != 0, DEVICE_IN_PROCESS};

			honest_device(h, &config, kept);
			config.way = DEVICE_SERVED;
			honest_device(h, &config, kept);
			/* The way of the data is the same for every set of flags. */
			config.way = DEVICE_SERVED_NO_FDS;
			if (f == NUM(flag_sets) - 1)
				honest_device(h, &config, kept);
		}
	/* A clause that no device promises is a clause that nothing has shown. */
	for (int c = 0; c < QSC_CLAUSE_COUNT; c++)
		if (binds_device((enum qsc_clause)c))
			tap_result(kept[c] > 0, "%s is kept by %u devices",
				   qsc_clause_id((enum qsc_clause)c), kept[c]);
}

/* ---- liars ---- */

static bool can_lie(const struct lie *lie, const struct device_config *config)
{
	return (config->flags & lie->flags) == lie->flags && !(config->way && lie->local) &&
	       (lie->peers == LIE_ANY || (lie->peers == LIE_TELLS) == config->tells_peers);
}

static bool names_clause(const char *list, const char *id)
{
	size_t size = strlen(id);

	for (const char *at = list; at; at = strchr(at, ' ')) {
		at += *at == ' ';
		if (strncmp(at, id, size) == 0 && (at[size] == ' ' || at[size] == '\0'))
			return true;
	}
	return false;
}

static void caught(struct harness *h, const struct lie *lie, const struct device_config *config)
{
	const char *id = qsc_clause_id(lie->clause);
	enum clause_result result;
	struct device d;
	char text[64];

	describe(config, text);
	if (with_device(config, lie, h, &d)) {
		tap_result(false, "%s %s: cannot be made", id, text);
		return;
	}
	h->await_ms = AWAIT_LIAR_MS;
	result = clause_run(clause_find(lie->clause), h);
	h->await_ms = AWAIT_MS;
	tap_result(result == CLAUSE_BROKEN, "%s liar is %s, %s (%s): %s", id,
		   result == CLAUSE_BROKEN ? "caught" : "not caught", text, lie->what, h->evidence);
	without_device(h, &d);
}

/*
 * All other tests on the liar, which was caught before. One letter a clause: B the clause it lies
 * about, b one that the lie names as broken too, ! one that it does not name, t not tried, - not
 * promised, . holds.
 */
static void accused(struct harness *h, const struct lie *lie, const struct device_config *config)
{
	char row[QSC_CLAUSE_COUNT + 1] = {0};
	size_t at = 0;
	bool fair = true;
	struct device d;

	if (with_device(config, lie, h, &d))
		return;
	for (int c = 0; c < QSC_CLAUSE_COUNT; c++) {
		const struct clause_test *test = clause_find((enum qsc_clause)c);
		enum clause_result result;

		if (!test)
			continue;
		result = (int)lie->clause == c ? CLAUSE_BROKEN : clause_run(test, h);
		row[at] = ".Bt-"[result == CLAUSE_BROKEN	 ? 1
				 : result == CLAUSE_NOT_TRIED	 ? 2
				 : result == CLAUSE_NOT_PROMISED ? 3
								 : 0];
		if (result == CLAUSE_BROKEN && (int)lie->clause != c) {
			row[at] = 'b';
			if (!names_clause(lie->also, qsc_clause_id((enum qsc_clause)c))) {
				row[at] = '!';
				fair = false;
				tap_note("%s is accused of %s: %s", lie->what,
					 qsc_clause_id((enum qsc_clause)c), h->evidence);
			}
		}
		at++;
	}
	without_device(h, &d);
	tap_result(fair, "%-7s %s (%s%s%s)", qsc_clause_id(lie->clause), row, lie->what,
		   lie->why ? "; " : "", lie->why ? lie->why : "");
}

static void one_lie(struct harness *h, const struct lie *lie)
{
	struct device_config config = {QSC_MIGRATION_STOP_COPY | QSC_MIGRATION_P2P |
					       QSC_MIGRATION_PRE_COPY,
				       lie->peers != LIE_NOT_TELLS, DEVICE_IN_PROCESS};

	for (size_t f = 0; f < NUM(flag_sets); f++) {
		config.flags = flag_sets[f];
		if (can_lie(lie, &config))
			caught(h, lie, &config);
	}
	accused(h, lie, &config);
	config.way = DEVICE_SERVED;
	if (can_lie(lie, &config))
		caught(h, lie, &config);
}

static void liars(struct harness *h, const char *only)
{
	unsigned int told[QSC_CLAUSE_COUNT] = {0};

	for (size_t g = 0; g < NUM(lies); g++)
		for (const struct lie *lie = lies[g]; lie->what; lie++) {
			if (only && strcmp(only, qsc_clause_id(lie->clause)) != 0)
				continue;
			one_lie(h, lie);
			told[lie->clause]++;
		}
	for (int c = 0; !only && c < QSC_CLAUSE_COUNT; c++)
		if (binds_device((enum qsc_clause)c))
			tap_result(told[c] && clause_find((enum qsc_clause)c),
				   "%s has a test and %u liars", qsc_clause_id((enum qsc_clause)c),
				   told[c]);
}

/* ---- the allowed list ---- */

static void actions(struct harness *h)
{
	for (size_t f = 0; f < NUM(flag_sets); f++)
		for (int kind = 0; kind < 4; kind++) {
			struct device_config config = {flag_sets[f], kind & 1,
						       kind & 2 ? DEVICE_SERVED
								: DEVICE_IN_PROCESS};
			struct device d;
			char text[64];

			if (with_device(&config, NULL, h, &d)) {
				tap_result(false, "%s: cannot be made", describe(&config, text));
				continue;
			}
			actions_try(h, describe(&config, text));
			without_device(h, &d);
		}
}

int main(int argc, char **argv)
{
	struct foreign foreign[DEVICE_FOREIGN];
	struct harness h = {
		.exerciser = &dmacopy_exerciser,
		.settle_us = SETTLE_US,
		.await_ms = AWAIT_MS,
		.foreign = foreign,
		.num_foreign = DEVICE_FOREIGN,
	};
	const char *what = argc > 1 ? argv[1] : "honest";
	int r = harness_init(&h);

	if (!r)
		r = device_foreign(foreign);
	if (r) {
		tap_result(false, "the harness cannot be set up: %s", strerror(-r));
		return tap_end();
	}
	if (strcmp(what, "honest") == 0)
		honest_devices(&h);
	else if (strcmp(what, "liars") == 0)
		liars(&h, argc > 2 ? argv[2] : NULL);
	else if (strcmp(what, "actions") == 0)
		actions(&h);
	for (size_t i = 0; i < DEVICE_FOREIGN; i++)
		stream_release(&foreign[i].stream);
	harness_release(&h);
	return tap_end();
}
