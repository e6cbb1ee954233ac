/* SPDX-License-Identifier: MIT */
/*
 * The proof of the check: every clause that binds a device is checked, and each check can fail.
 *
 *   clauses honest        every item holds on every device that promises it
 *   clauses count         no clause is without a check and a liar that breaks nothing else
 *   clauses table         what came of every liar, as rows of the table in the documents
 *   clauses liars ID DOC  every liar is caught by the check of its clause, and of nothing else but
 *                         what the lie names, as the table DOC of the documents says; ID is a
 *                         clause or a group of them
 *
 * `few` behind them looks once where the others look in all ways; each liar and each item remains.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <quiesce/check.h>
#include <quiesce/contract.h>

#include "device.h"
#include "dmacopy/exercise.h"
#include "side.h"
#include "tap.h"

#define NUM(array) (sizeof(array) / sizeof((array)[0]))

/* Nobody waits that long for an honest device; a liar who does not deliver is not waited for. */
#define AWAIT_LIAR_MS  1000
#define AWAIT_OTHER_MS 2000
/* What was missed on a machine that did something else meanwhile is looked at once more. */
#define AGAIN_FACTOR 10

/* Lies do not take time. */
#define SETTLE_LIAR_US 300

#define ALL_FLAGS (QSC_MIGRATION_STOP_COPY | QSC_MIGRATION_P2P | QSC_MIGRATION_PRE_COPY)
#define MAX_ITEMS 128

/* Liars that are looked at side by side: mostly they are waited for. */
#define WIDTH	  6
#define WIDTH_FEW 2

/* In builds that take their time: each liar once, and honest devices in each way once. */
static bool few;

static const uint32_t flag_sets[] = {
	QSC_MIGRATION_STOP_COPY,
	QSC_MIGRATION_STOP_COPY | QSC_MIGRATION_P2P,
	QSC_MIGRATION_STOP_COPY | QSC_MIGRATION_PRE_COPY,
	ALL_FLAGS,
};

static const struct {
	const char *name;
	const struct lie *lies;
} groups[] = {{"state", state_lies}, {"sess", sess_lies}, {"dev", dev_lies}, {"log", log_lies}};

static const struct qsc_exerciser *const exercisers[] = {&dmacopy_exerciser, NULL};

static struct qsc_check_foreign foreign[DEVICE_FOREIGN];

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

static uint64_t violations(void *ctx)
{
	struct device *d = ctx;

	return atomic_load(&d->violations);
}

static struct qsc_check_options options_for(struct device *d)
{
	return (struct qsc_check_options){
		.device = d->opener,
		.exercisers = exercisers,
		.foreign = foreign,
		.num_foreign = DEVICE_FOREIGN,
		.peers = d->config.tells_peers ? QSC_CHECK_PEERS_TOLD : QSC_CHECK_PEERS_NOT_TOLD,
		.dangerous = true,
		.violations = violations,
		.violations_ctx = d,
	};
}

/* ---- honest devices ---- */

/* Which capability an item speaks about; a device with it must be seen to keep it. */
static bool promised(const char *id, uint32_t flags)
{
	static const struct {
		const char *id;
		uint32_t flags;
	} needs[] = {
		{"ARC-4", QSC_MIGRATION_PRE_COPY},
		{"SESS-4", QSC_MIGRATION_PRE_COPY},
		{"DEV-4", QSC_MIGRATION_P2P},
		{"DEV-5", QSC_MIGRATION_P2P},
		{"precopy-info", QSC_MIGRATION_PRE_COPY},
	};

	for (size_t i = 0; i < NUM(needs); i++)
		if (strcmp(needs[i].id, id) == 0)
			return flags & needs[i].flags;
	return true;
}

struct honest {
	const struct device_config *config;
	unsigned int *kept; /* counts, for each clause, the devices that were seen to keep it */
};

static void honest_found(void *ctx, const struct qsc_check_finding *f)
{
	struct honest *honest = ctx;
	bool promise = promised(f->item.id, honest->config->flags);
	char text[64];

	describe(honest->config, text);
	if (f->result == QSC_CHECK_NOT_PROMISED && !promise) {
		tap_note("%s %s: not promised, %s", f->item.id, text, f->text);
		return;
	}
	if (f->item.clause != QSC_CLAUSE_COUNT)
		honest->kept[f->item.clause] += f->result == QSC_CHECK_HOLDS;
	tap_result(f->result == QSC_CHECK_HOLDS && promise, "%s %s: %s, %s", f->item.id, text,
		   qsc_check_result_name(f->result), f->text);
	for (size_t i = 0; i < f->num_steps; i++)
		tap_note("%s", f->steps[i]);
}

static void honest_device(const struct device_config *config, const struct device_config *to,
			  unsigned int kept[QSC_CLAUSE_COUNT])
{
	struct honest honest = {config, kept};
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_check_options options;
	struct device d, other;
	char text[64];
	int r = device_create(&d, config, NULL);

	if (!r && to)
		r = device_create(&other, to, NULL);
	if (r) {
		tap_result(false, "%s: cannot be made", describe(config, text));
		return;
	}
	options = options_for(&d);
	if (to)
		options.to = other.opener;
	options.found = honest_found;
	options.found_ctx = &honest;
	r = qsc_check_run(&options, NULL, &err);
	tap_result(!r, "%s%s was looked at: %s", describe(config, text),
		   to ? " with a destination" : "", err.text);
	device_destroy(&d);
	if (to)
		device_destroy(&other);
}

static void honest_devices(void)
{
	static const struct device_config there = {ALL_FLAGS, false, DEVICE_SERVED};
	unsigned int kept[QSC_CLAUSE_COUNT] = {0};

	for (size_t f = few ? NUM(flag_sets) - 1 : 0; f < NUM(flag_sets); f++)
		for (int peers = 0; peers < 2; peers++) {
			struct device_config config = {flag_sets[f], peers != 0, DEVICE_IN_PROCESS};

			honest_device(&config, NULL, kept);
			config.way = DEVICE_SERVED;
			honest_device(&config, NULL, kept);
			/* The way of the data is the same for every set of flags. */
			config.way = DEVICE_SERVED_NO_FDS;
			if (flag_sets[f] == ALL_FLAGS && !(few && peers))
				honest_device(&config, &there, kept);
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

static bool names(const char *list, const char *id)
{
	size_t size = strlen(id);

	for (const char *at = list; at; at = strchr(at, ' ')) {
		at += *at == ' ';
		if (strncmp(at, id, size) == 0 && (at[size] == ' ' || at[size] == '\0'))
			return true;
	}
	return false;
}

/* What the check says of one liar. */
struct verdict {
	const struct lie *lie;
	bool caught; /* the check of its clause names it */
	bool named[QSC_CLAUSE_COUNT + 1];
	char text[256]; /* of the check of its clause */
	char unfair[256];
};

static void liar_found(void *ctx, const struct qsc_check_finding *f)
{
	struct verdict *v = ctx;

	if (f->item.clause == v->lie->clause) {
		v->caught = f->result == QSC_CHECK_BROKEN;
		snprintf(v->text, sizeof(v->text), "%s", f->text);
	}
	if (f->result != QSC_CHECK_BROKEN)
		return;
	v->named[f->clause] = true;
	if (f->clause == v->lie->clause || names(v->lie->also, qsc_clause_id(f->clause)))
		return;
	snprintf(v->unfair, sizeof(v->unfair), "%s, %s: %.180s", f->item.id,
		 qsc_clause_id(f->clause), f->text);
	for (size_t i = 0; i < f->num_steps; i++)
		tap_note("%s", f->steps[i]);
}

/* One liar, looked at by one item or by all. */
static int look_once(const struct lie *lie, const struct device_config *config, bool all,
		     uint32_t await_ms, struct verdict *v)
{
	bool items[MAX_ITEMS] = {false};
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_check_options options;
	struct device d;
	int r = device_create(&d, config, lie);

	*v = (struct verdict){.lie = lie};
	if (r)
		return r;
	items[qsc_check_item_find(qsc_clause_id(lie->clause))] = true;
	options = options_for(&d);
	options.items = all ? NULL : items;
	options.settle_us = SETTLE_LIAR_US;
	options.await_ms = await_ms;
	options.found = liar_found;
	options.found_ctx = v;
	r = qsc_check_run(&options, NULL, &err);
	if (r)
		snprintf(v->text, sizeof(v->text), "%.200s", err.text);
	device_destroy(&d);
	return r;
}

static int look_at(const struct lie *lie, const struct device_config *config, bool all,
		   struct verdict *v)
{
	const char *late = strerrordesc_np(ETIMEDOUT);
	uint32_t await_ms = all ? AWAIT_OTHER_MS : AWAIT_LIAR_MS;
	int r = look_once(lie, config, all, await_ms, v);

	if (!v->caught && strstr(v->text, late))
		r = look_once(lie, config, all, await_ms * AGAIN_FACTOR, v);
	return r;
}

static void caught(const struct lie *lie, const struct device_config *config)
{
	struct verdict v;
	char text[64];
	int r = look_at(lie, config, false, &v);

	tap_result(!r && v.caught, "%s liar is %s, %s (%s): %s", qsc_clause_id(lie->clause),
		   v.caught ? "caught" : "not caught", describe(config, text), lie->what, v.text);
}

static struct device_config config_for(const struct lie *lie)
{
	return (struct device_config){ALL_FLAGS, lie->peers != LIE_NOT_TELLS, DEVICE_IN_PROCESS};
}

/* A clause that the lie says it breaks too, and that is not named; or NULL. */
static const char *never_named(const struct verdict *v)
{
	for (int c = 0; c < QSC_CLAUSE_COUNT; c++)
		if (!v->named[c] && names(v->lie->also, qsc_clause_id((enum qsc_clause)c)))
			return qsc_clause_id((enum qsc_clause)c);
	return NULL;
}

/* "ARC-2, STATE-4": the clause of the lie first. */
static void list_named(const struct verdict *v, char *text, size_t size)
{
	size_t used = (size_t)snprintf(text, size, "%s",
				       v->caught ? qsc_clause_id(v->lie->clause) : "not named");

	for (int c = 0; c < QSC_CLAUSE_COUNT; c++)
		if (v->named[c] && c != (int)v->lie->clause && used < size)
			used += (size_t)snprintf(text + used, size - used, ", %s",
						 qsc_clause_id((enum qsc_clause)c));
}

/* What came of a liar, as a row of a list-table. */
static void row_of(const struct verdict *v, char *text, size_t size)
{
	const struct lie *lie = v->lie;
	char named[128];

	list_named(v, named, sizeof(named));
	snprintf(text, size, "   * - %s\n     - %s\n     - %s%s%s\n     - %s%s%s%s\n",
		 qsc_clause_id(lie->clause), lie->what, lie->fault ? "``" : "",
		 lie->fault ? lie->fault : "a layer of the test", lie->fault ? "``" : "", named,
		 lie->why ? " (" : "", lie->why ? lie->why : "", lie->why ? ")" : "");
}

/* The table of the documents, where it is to be compared. */
static char documented[65536];

static int read_documented(const char *path)
{
	FILE *file = fopen(path, "re");
	size_t n = file ? fread(documented, 1, sizeof(documented) - 1, file) : 0;

	documented[n] = '\0';
	if (file)
		fclose(file);
	return n ? 0 : -ENOENT;
}

/* The whole check names its clause and those that the lie says it breaks too, and no other. */
static void accused(const struct lie *lie)
{
	struct device_config config = config_for(lie);
	struct verdict v;
	char row[1024];
	int r = look_at(lie, &config, true, &v);

	tap_result(!r && v.caught && !v.unfair[0] && !never_named(&v),
		   "%s alone is named (%s%s%s)%s%s%s%s", qsc_clause_id(lie->clause), lie->what,
		   lie->also ? "; but for " : "", lie->also ? lie->also : "",
		   v.unfair[0] ? ": accused of " : "", v.unfair,
		   never_named(&v) ? ": not named " : "", never_named(&v) ? never_named(&v) : "");
	row_of(&v, row, sizeof(row));
	tap_result(strstr(documented, row), "%s: the documents say of \"%s\" what came of it",
		   qsc_clause_id(lie->clause), lie->what);
}

/* To be put into the documents. */
static void table(void)
{
	fputs(".. What `clauses table` prints; the tests compare it with what comes of each "
	      "liar.\n\n"
	      ".. list-table::\n   :header-rows: 1\n   :widths: 12 40 30 18\n\n"
	      "   * - clause\n     - what the liar does\n     - made by\n     - named\n",
	      stdout);
	for (size_t g = 0; g < NUM(groups); g++)
		for (const struct lie *lie = groups[g].lies; lie->what; lie++) {
			struct device_config config = config_for(lie);
			struct verdict v;
			char row[1024];

			look_at(lie, &config, true, &v);
			row_of(&v, row, sizeof(row));
			fputs(row, stdout);
			fflush(stdout);
		}
}

/* The one item of its clause, in one way. */
static void one_look(const struct lie *lie)
{
	struct device_config config = config_for(lie);

	caught(lie, &config);
}

static void one_lie(const struct lie *lie)
{
	struct device_config config = config_for(lie);

	for (size_t f = 0; f < NUM(flag_sets); f++) {
		config.flags = flag_sets[f];
		if (can_lie(lie, &config))
			caught(lie, &config);
	}
	accused(lie);
	config.way = DEVICE_SERVED;
	if (can_lie(lie, &config))
		caught(lie, &config);
}

/* Every clause has a liar that breaks nothing else, by which the check of it is known to be right.
 */
static void count_liars(void)
{
	unsigned int told[QSC_CLAUSE_COUNT] = {0};
	unsigned int alone[QSC_CLAUSE_COUNT] = {0};

	for (size_t g = 0; g < NUM(groups); g++)
		for (const struct lie *lie = groups[g].lies; lie->what; lie++) {
			told[lie->clause]++;
			alone[lie->clause] += !lie->also;
		}
	for (int c = 0; c < QSC_CLAUSE_COUNT; c++)
		if (binds_device((enum qsc_clause)c))
			tap_result(alone[c] > 0, "%s has %u liars, %u of which break nothing else",
				   qsc_clause_id((enum qsc_clause)c), told[c], alone[c]);
}

#define MAX_LIES 256

static bool chosen(const char *only, size_t group, const struct lie *lie)
{
	return strcmp(only, groups[group].name) == 0 ||
	       strcmp(only, qsc_clause_id(lie->clause)) == 0;
}

static void work_on_lie(size_t number, void *ctx)
{
	const struct lie *const *lies = ctx;

	if (few)
		one_look(lies[number]);
	else
		one_lie(lies[number]);
}

/* `only` is a group, or a clause. */
static void liars(const char *only)
{
	static const struct lie *lies[MAX_LIES];
	size_t count = 0;

	for (size_t g = 0; g < NUM(groups); g++)
		for (const struct lie *lie = groups[g].lies; lie->what && count < MAX_LIES; lie++)
			if (chosen(only, g, lie))
				lies[count++] = lie;
	tap_result(count > 0 && count < MAX_LIES, "%zu liars", count);
	side_by_side(count, few ? WIDTH_FEW : WIDTH, work_on_lie, lies);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "honest";
	int r = device_foreign(foreign);

	few = argc > 1 && strcmp(argv[argc - 1], "few") == 0;
	argc -= few;
	if (r) {
		tap_result(false, "streams of other devices cannot be made: %s", strerror(-r));
		return tap_end();
	}
	if (strcmp(what, "honest") == 0)
		honest_devices();
	else if (strcmp(what, "count") == 0)
		count_liars();
	else if (strcmp(what, "table") == 0)
		table();
	else if (strcmp(what, "liars") == 0 && argc == 4 && !read_documented(argv[3]))
		liars(argv[2]);
	else
		tap_result(false, "wrong usage, or the documents cannot be read");
	device_foreign_release(foreign);
	return strcmp(what, "table") == 0 ? 0 : tap_end();
}
