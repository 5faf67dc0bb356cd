import Glibc
import Synchronization

/// Socket paths that no other test, and no other run, uses.
enum TemporaryPath {
    private static let count = Atomic<Int>(0)

    static func socket() -> String {
        let number = count.add(1, ordering: .relaxed).newValue
        return "/tmp/vpci-\(getpid())-\(number).sock"
    }
}
