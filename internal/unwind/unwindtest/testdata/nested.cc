#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <unistd.h>
#include <vector>

namespace outer {
template <typename T> struct Box {
	T value;
	__attribute__((noinline)) int wait(const std::string &name, std::function<int(int)> f)
	{
		int n = f(static_cast<int>(name.size()));
		return n + value;
	}
};
}

int main()
{
	std::vector<int> numbers{3, 1, 2};
	outer::Box<long> box{4};
	const std::string name("name");
	int sum = 0;
	std::for_each(numbers.begin(), numbers.end(), [&](int n) {
		sum += box.wait(name, [n](int m) {
			char byte;
			std::printf("%d\n", getpid());
			std::fflush(stdout);
			while (read(0, &byte, 1) >= 0)
				;
			return n + m;
		});
	});
	return sum;
}
