import Glibc
import HostSystem
import Testing

@Suite struct WithoutInterruptionTests {
    /// Ends the process with 0 where the work was interrupted or the signal was lost.
    private static func work(under signal: Int32) throws {
        try withoutInterruption {
            raise(signal)
            var set = sigset_t()
            unsafe sigpending(&set)
            guard unsafe sigismember(&set, signal) == 1 else { exit(0) }
        }
        exit(0)
    }

    @Test func `HI-J26: a signal waits until the work is done, and then ends the process`() async {
        await #expect(processExitsWith: .signal(SIGTERM)) { try Self.work(under: SIGTERM) }
        await #expect(processExitsWith: .signal(SIGINT)) { try Self.work(under: SIGINT) }
        await #expect(processExitsWith: .signal(SIGHUP)) { try Self.work(under: SIGHUP) }
    }

    @Test func `what the work returns and throws comes through`() throws {
        #expect(try withoutInterruption { 7 } == 7)
        #expect(throws: SystemError.self) {
            try withoutInterruption { throw SystemError("work", .busy) }
        }
    }
}
