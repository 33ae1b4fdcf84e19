// run correct | planted: tries the cases in every order. A planted mistake runs in a child, whose
// death and message are checked.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "cases.h"
#include "simt.h"

namespace {

const char* const order_names[] = {"in_order", "reversed", "random", "run_ahead"};
struct Schedule {
  simt::Order order;
  unsigned long long seed;
};
const Schedule schedules[] = {{simt::Order::in_order, 0},  {simt::Order::reversed, 0},
                              {simt::Order::run_ahead, 1}, {simt::Order::random, 1},
                              {simt::Order::random, 2},    {simt::Order::random, 3}};

int failures = 0;

void complain(const char* name, Schedule s, const std::string& what) {
  std::printf("%s, %s, seed %llu: %s\n", name, order_names[int(s.order)], s.seed, what.c_str());
  ++failures;
}

void run_correct() {
  for (int i = 0; i < cases::correct_count; ++i) {
    for (const Schedule& s : schedules) {
      simt::set_schedule(s.seed, s.order);
      if (!cases::correct[i].run()) complain(cases::correct[i].name, s, "wrong result");
    }
  }
}

// How a case ends in a process of its own.
struct End {
  bool died, right;
  std::string said;
};

End run_alone(const cases::Planted& c, Schedule s) {
  int ends[2];
  if (pipe(ends) != 0) std::abort();
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 1);
    dup2(ends[1], 2);
    close(ends[0]);
    close(ends[1]);
    simt::set_schedule(s.seed, s.order);
    _exit(c.run() ? 0 : 100);
  }
  close(ends[1]);
  End end = {};
  char text[4096];
  for (ssize_t n; (n = read(ends[0], text, sizeof(text))) > 0;) end.said.append(text, size_t(n));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  end.right = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  end.died = !end.right && !(WIFEXITED(status) && WEXITSTATUS(status) == 100);
  return end;
}

// "planted.cu:<line>" of every line marked with the case's name.
std::vector<std::string> marked_lines(const std::string& name) {
  std::ifstream source(SIMT_PLANTED);
  const std::string mark = "// " + name;
  std::vector<std::string> lines;
  std::string line;
  for (int number = 1; std::getline(source, line); ++number) {
    const bool marked = line.size() >= mark.size() &&
                        line.compare(line.size() - mark.size(), mark.size(), mark) == 0;
    if (marked) lines.push_back("planted.cu:" + std::to_string(number));
  }
  return lines;
}

void run_planted(const cases::Planted& c, const char* expected) {
  const bool runs_wrong = expected != nullptr && std::strcmp(expected, "*") == 0;
  int wrong = 0;
  for (const Schedule& s : schedules) {
    const End end = run_alone(c, s);
    if (expected == nullptr || runs_wrong) {
      if (end.died) complain(c.name, s, "died: " + end.said);
      if (!end.right && !runs_wrong) complain(c.name, s, "wrong result");
      wrong += !end.right && s.order == simt::Order::random;
      continue;
    }
    const bool no_lines = *expected == '~';
    if (!end.died) complain(c.name, s, "was not found");
    if (end.said.find(expected + no_lines) == std::string::npos) {
      complain(c.name, s, "'" + std::string(expected + no_lines) + "' is not in: " + end.said);
    }
    if (no_lines) continue;
    for (const std::string& line : marked_lines(c.name)) {
      if (end.said.find(line) == std::string::npos) {
        complain(c.name, s, "'" + line + "' is not in: " + end.said);
      }
    }
  }
  if (runs_wrong && wrong == 0) complain(c.name, schedules[3], "no random order noticed");
}

}  // namespace

int main(int argc, char** argv) {
  const std::string part = argc > 1 ? argv[1] : "", flavour = SIMT_FLAVOUR;
  const char* const only = argc > 2 ? argv[2] : nullptr;
  if (part == "correct") run_correct();
  if (part == "planted") {
    for (int i = 0; i < cases::planted_count; ++i) {
      const cases::Planted& c = cases::planted[i];
      if (only != nullptr && std::strcmp(only, c.name) != 0) continue;
      run_planted(c, flavour == "plain" ? c.plain : flavour == "race" ? c.race : c.sanitize);
    }
  }
  std::printf("%d failures\n", failures);
  return failures == 0 && (part == "correct" || part == "planted") ? 0 : 1;
}
