internal import Glibc
internal import HostSystem

extension HostTree {
    /// Owner, group and mode of a file, as `root:vfio 0660`.
    func ownership(_ path: String) -> String {
        guard let status = attributes(path) else { return "of unknown owner" }
        let user = unsafe getpwuid(status.owner).map { unsafe String(cString: $0.pointee.pw_name) }
        let group = unsafe getgrgid(status.group).map {
            unsafe String(cString: $0.pointee.gr_name)
        }
        let mode = String(status.mode, radix: 8)
        return "\(user ?? String(status.owner)):\(group ?? String(status.group)) 0\(mode)"
    }

    /// Processes that have a file of that place open, as `pid 12 (qemu)`; only those we may look at.
    func holders(of place: String) -> [String] {
        var found: [String] = []
        for process in entriesIfAny("/proc") where process.allSatisfy(\.isNumber) {
            let files = entriesIfAny("/proc/\(process)/fd")
            guard files.contains(where: { (try? link("/proc/\(process)/fd/\($0)")) == place })
            else { continue }
            let name = textIfAny("/proc/\(process)/comm") ?? "unknown"
            let own = isLive && process == String(getpid()) ? ", this process" : ""
            found.append("pid \(process) (\(name)\(own))")
        }
        return found
    }
}
