import CSystemShims
import Glibc
import HostSystem

/// Says what happens while it happens: step lines, and a live line on a terminal.
///
/// With `--json` standard output carries the report alone, so steps go to standard error.
final class StepReporter {
    private let steps: Int32
    private let isLive: Bool
    private var liveLength = 0
    private var limits: [String: LineLimit] = [:]
    private let neverWaits: Bool
    /// Lines of a higher level are not said.
    var level = LogLevel.info
    /// Lines that nobody took.
    private var untaken: UInt64 = 0
    /// Bytes of a line that a pipe takes as a whole when it takes any.
    private static let lineBytes = 4000

    /// Chooses where lines go. With `neverWaits`, a line that nobody takes at once is left out and
    /// counted: a daemon answers its clients whether or not somebody reads what it says.
    convenience init(json: Bool, neverWaits: Bool = false) {
        self.init(steps: json ? STDERR_FILENO : STDOUT_FILENO, neverWaits: neverWaits)
    }

    /// Says steps to a descriptor.
    init(steps: Int32, neverWaits: Bool) {
        self.steps = steps
        self.neverWaits = neverWaits
        isLive = isatty(STDERR_FILENO) == 1
    }

    /// One thing happened.
    func step(_ text: String, level: LogLevel = .info) {
        guard level <= self.level else { return }
        clearLive()
        say(text, to: steps)
    }

    private func say(_ text: String, to descriptor: Int32) {
        guard neverWaits else {
            Self.write(text + "\n", to: descriptor)
            return
        }
        if untaken > 0, Self.takes(descriptor) {
            Self.write("\(untaken) lines left out: nobody read them\n", to: descriptor)
            untaken = 0
        }
        guard Self.takes(descriptor) else {
            untaken += 1
            return
        }
        let line = text.utf8.prefix(Self.lineBytes)
        Self.write(String(decoding: line, as: UTF8.self) + "\n", to: descriptor)
    }

    /// False when a write would wait for somebody.
    private static func takes(_ descriptor: Int32) -> Bool {
        var wish = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        return unsafe poll(&wish, 1, 0) != 0
    }

    /// One thing happened at `source`, whose other end decides how often: a line with an error id is
    /// shown ten times at once and once a second after that, any other a hundred times and then
    /// fifty times a second (rule R6 of docs/requirements/HI-rules.md).
    func step(
        _ text: String,
        from source: String,
        id: String? = nil,
        level given: LogLevel? = nil
    ) {
        let level = given ?? (id == nil ? .info : .warning)
        guard level <= self.level else { return }
        let now = MonotonicClock.now
        let key = id.map { "\(source) \($0)" } ?? source
        var limit =
            limits[key]
            ?? (id == nil
                ? LineLimit(burst: 100, interval: 20_000_000, now: now)
                : LineLimit(burst: 10, interval: 1_000_000_000, now: now))
        let omitted = limit.admit(now: now)
        limits[key] = limit
        guard let omitted else { return }
        if omitted > 0 { step(Self.omission(key, omitted), level: level) }
        step("\(source): \(text)", level: level)
    }

    /// Tells what was left out and not told yet.
    func tellOmitted() {
        for (key, limit) in limits.sorted(by: { $0.key < $1.key }) where limit.omitted > 0 {
            step(Self.omission(key, limit.omitted), level: .error)
        }
        limits = [:]
    }

    private static func omission(_ key: String, _ count: UInt64) -> String {
        "\(key): \(count) lines like the next or the last left out"
    }

    /// Something is wrong; goes to standard error in every mode.
    func problem(_ text: String) {
        clearLive()
        say("vhost-pci: " + text, to: STDERR_FILENO)
    }

    /// Replaces the live line; does nothing where standard error is no terminal.
    func live(_ text: String) {
        guard isLive else { return }
        let text = Self.clip(text, columns: Self.columns(of: STDERR_FILENO))
        let pad = String(repeating: " ", count: max(0, liveLength - text.count))
        Self.write("\r" + text + pad, to: STDERR_FILENO)
        liveLength = text.count
    }

    /// What fits into a row of that many columns, all of it when nobody knows how many: a line that
    /// goes on in the next row cannot be replaced.
    static func clip(_ text: String, columns: Int?) -> String {
        // The last column stays free: some terminals go to the next row when it is written.
        guard let columns, columns > 1, text.count >= columns else { return text }
        return text.prefix(columns - 2) + "…"
    }

    private static func columns(of terminal: Int32) -> Int? {
        let columns = shim_terminal_columns(terminal)
        return columns > 0 ? Int(columns) : nil
    }

    /// The result, on standard output; throws when it cannot be kept there, such as on a full disk.
    func result(_ text: String) throws(SystemError) {
        clearLive()
        try Self.writeResult(text + "\n")
    }

    /// As `write` on standard output, but a report that is lost is an error.
    static func writeResult(
        _ text: String,
        to descriptor: Int32 = STDOUT_FILENO
    ) throws(SystemError) {
        if let error = write(text, to: descriptor) {
            throw SystemError("write the report", error)
        }
    }

    private func clearLive() {
        guard liveLength > 0 else { return }
        Self.write("\r" + String(repeating: " ", count: liveLength) + "\r", to: STDERR_FILENO)
        liveLength = 0
    }

    /// Writes all of it, or says why not; a reader that went away loses the rest and nothing else.
    @discardableResult
    static func write(_ text: String, to descriptor: Int32) -> Errno? {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = unsafe rest.withUnsafeBytes { bytes in
                unsafe Glibc.write(descriptor, bytes.baseAddress, bytes.count)
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return errno == EPIPE ? nil : Errno(errno) }
            rest = rest.dropFirst(count)
        }
        return nil
    }
}
