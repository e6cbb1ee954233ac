/* SPDX-License-Identifier: MIT */
/* quiesce-bench: run the benchmarks and print every figure beside what it is compared with. */
#include "bench.h"

#include <argp.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <json-c/json.h>

static const struct bench {
	const char *name;
	void (*run)(struct bench_run *run);
} benches[] = {
	{"read", bench_register_read}, {"data", bench_state_data}, {"load", bench_state_load},
	{"report", bench_log_report},  {"dma", bench_dma},	   {"set", bench_set},
	{"moves", bench_moves},	       {"audit", bench_audit},
};

#define NUM_BENCHES (sizeof(benches) / sizeof(benches[0]))

struct arguments {
	bool quick;
	bool json;
	unsigned int chosen; /* a bit for each; none: all */
};

static error_t choose(struct arguments *arguments, const char *name, struct argp_state *state)
{
	for (size_t i = 0; i < NUM_BENCHES; i++) {
		if (strcmp(benches[i].name, name) != 0)
			continue;
		arguments->chosen |= 1U << i;
		return 0;
	}
	argp_failure(state, 2, 0,
		     "\"%s\" is no benchmark; there are read, data, load, report, dma, set, moves "
		     "and audit",
		     name);
	return EINVAL;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *arguments = state->input;

	switch (key) {
	case 'q':
		arguments->quick = true;
		return 0;
	case 'j':
		arguments->json = true;
		return 0;
	case ARGP_KEY_ARG:
		return choose(arguments, arg, state);
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_option options[] = {
	{"quick", 'q', NULL, 0, "Only show that it works; the figures mean nothing", 0},
	{"json", 'j', NULL, 0, "Print JSON", 0},
	{0},
};

static const struct argp argp = {
	.options = options,
	.parser = parse,
	.args_doc = "[BENCHMARK...]",
	.doc = "Measure Quiesce side by side with what it is built on. Every figure is the median "
	       "of rounds that alternate with those of the other side. BENCHMARK is read, data, "
	       "load, report, dma, set, moves or audit; without any all are run.",
};

void bench_add(struct bench_run *run, struct bench_figure figure)
{
	figure.ratio = figure.value / figure.against_value;
	if (run->num_figures < BENCH_MAX_FIGURES)
		run->figures[run->num_figures++] = figure;
}

static bool aim_met(const struct bench_figure *figure)
{
	double value = figure->absolute ? figure->value : figure->ratio;

	return figure->aim_is == AIM_AT_MOST ? value <= figure->aim : value >= figure->aim;
}

static void print_moves(const struct bench_run *run)
{
	printf("\n%-38s %13s %14s %14s %14s\n", "moving a set between two processes", "downtime",
	       "total", "bare socket", "memcpy");
	for (size_t i = 0; i < run->num_moves; i++) {
		const struct bench_move *move = &run->moves[i];
		char name[64];

		snprintf(name, sizeof(name), "%zu device%s of %llu MiB, %s", move->devices,
			 move->devices == 1 ? "" : "s", (unsigned long long)(move->state >> 20),
			 move->precopy ? "pre-copy" : "stopped first");
		printf("%-38s %10.2f ms %11.2f ms %11.2f ms %11.2f ms\n", name,
		       move->downtime_us / 1e3, move->total_us / 1e3, move->socket_us / 1e3,
		       move->memcpy_us / 1e3);
	}
}

static void print_people(const struct bench_run *run)
{
	printf("%-38s %16s   %-28s %14s %8s   %s\n", "", "measured", "against", "", "ratio", "aim");
	for (size_t i = 0; i < run->num_figures; i++) {
		const struct bench_figure *figure = &run->figures[i];
		char aim[64] = "";

		if (figure->aim_is != AIM_NONE)
			snprintf(aim, sizeof(aim), "%s %g%s%s: %s",
				 figure->aim_is == AIM_AT_MOST ? "at most" : "at least",
				 figure->aim, figure->absolute ? " " : "x",
				 figure->absolute ? figure->unit : "",
				 aim_met(figure) ? "met" : "missed");
		printf("%-38s %11.2f %-4s   %-28s %9.2f %-4s %7.3fx   %s\n", figure->name,
		       figure->value, figure->unit, figure->against, figure->against_value,
		       figure->unit, figure->ratio, aim);
	}
	if (run->num_moves)
		print_moves(run);
}

static struct json_object *move_json(const struct bench_move *move)
{
	struct json_object *object = json_object_new_object();

	json_object_object_add(object, "devices", json_object_new_uint64(move->devices));
	json_object_object_add(object, "state_bytes", json_object_new_uint64(move->state));
	json_object_object_add(object, "precopy", json_object_new_boolean(move->precopy));
	json_object_object_add(object, "downtime_us", json_object_new_double(move->downtime_us));
	json_object_object_add(object, "total_us", json_object_new_double(move->total_us));
	json_object_object_add(object, "socket_us", json_object_new_double(move->socket_us));
	json_object_object_add(object, "memcpy_us", json_object_new_double(move->memcpy_us));
	return object;
}

static struct json_object *figure_json(const struct bench_figure *figure)
{
	struct json_object *object = json_object_new_object();

	json_object_object_add(object, "key", json_object_new_string(figure->key));
	json_object_object_add(object, "name", json_object_new_string(figure->name));
	json_object_object_add(object, "unit", json_object_new_string(figure->unit));
	json_object_object_add(object, "value", json_object_new_double(figure->value));
	json_object_object_add(object, "against", json_object_new_string(figure->against));
	json_object_object_add(object, "against_value",
			       json_object_new_double(figure->against_value));
	json_object_object_add(object, "ratio", json_object_new_double(figure->ratio));
	if (figure->aim_is == AIM_NONE)
		return object;
	json_object_object_add(object, figure->aim_is == AIM_AT_MOST ? "at_most" : "at_least",
			       json_object_new_double(figure->aim));
	json_object_object_add(object, "aim_of",
			       json_object_new_string(figure->absolute ? "value" : "ratio"));
	json_object_object_add(object, "met", json_object_new_boolean(aim_met(figure)));
	return object;
}

static void print_json(const struct bench_run *run)
{
	struct json_object *root = json_object_new_object();
	struct json_object *figures = json_object_new_array();
	struct json_object *moves = json_object_new_array();

	json_object_object_add(root, "quick", json_object_new_boolean(run->quick));
	json_object_object_add(root, "figures", figures);
	for (size_t i = 0; i < run->num_figures; i++)
		json_object_array_add(figures, figure_json(&run->figures[i]));
	json_object_object_add(root, "moves", moves);
	for (size_t i = 0; i < run->num_moves; i++)
		json_object_array_add(moves, move_json(&run->moves[i]));
	puts(json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY));
	json_object_put(root);
}

/* Hundreds of devices have thousands of files. */
static void allow_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		bench_die("cannot tell how many files may be open", errno);
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit))
		bench_die("cannot have more files open", errno);
}

/* The first two CPUs that this process may use. */
static void choose_cpus(struct bench_run *run)
{
	cpu_set_t set;
	int found = 0;

	if (sched_getaffinity(0, sizeof(set), &set))
		bench_die("cannot tell which CPUs there are", errno);
	for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++) {
		if (CPU_ISSET((size_t)cpu, &set))
			run->cpus[found++] = cpu;
	}
	if (found < 2)
		run->cpus[1] = run->cpus[0];
}

int main(int argc, char **argv)
{
	struct arguments arguments = {0};
	struct bench_run run = {0};

	argp_err_exit_status = 2;
	argp_parse(&argp, argc, argv, 0, NULL, &arguments);
	run.quick = arguments.quick;
	choose_cpus(&run);
	allow_files();
	for (size_t i = 0; i < NUM_BENCHES; i++)
		if (!arguments.chosen || arguments.chosen >> i & 1)
			benches[i].run(&run);
	if (arguments.json)
		print_json(&run);
	else
		print_people(&run);
	return 0;
}
