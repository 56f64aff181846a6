use std::io::Read;

#[inline(never)]
fn wait<T: std::fmt::Debug>(value: T) -> usize {
    println!("{}", std::process::id());
    let mut b = [0u8; 1];
    let n = std::io::stdin().read(&mut b).unwrap();
    n + format!("{:?}", value).len()
}

fn main() {
    let v: Vec<usize> = vec![1, 2, 3];
    let sum: usize = v.iter().map(|n| wait(n)).sum();
    println!("{}", sum);
}
